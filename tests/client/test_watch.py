"""A watch tells every object and every change, whatever happens to the connection."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lora_client.client import LoRAClient
from lora_client.errors import NotFound, TimedOut, Unauthorized, Unavailable
from lora_client.names import ADAPTER
from lora_client.retrying import Backoff
from lora_client.watching import watch_objects
from tests.client.objects import adapter, conditions
from tests.fakes.api_server import FakeApiServer, write_kubeconfig


async def take(changes: AsyncIterator[tuple[str, Any]], count: int) -> list[tuple[str, str]]:
    async with asyncio.timeout(10):
        return [(kind, found.name) for kind, found in [await anext(changes) for _ in range(count)]]


async def watching(api: FakeApiServer, *, streams: int = 1) -> None:
    """Until that many streams were opened."""
    async with asyncio.timeout(10):
        while sum("watch=true" in line for line in api.requests) < streams:
            await asyncio.sleep(0.01)


async def test_what_is_there_comes_first_then_every_change(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(ADAPTER, adapter("one"))
    changes = client.watch("adapters")
    assert await take(changes, 1) == [("Added", "one")]
    following = asyncio.ensure_future(take(changes, 3))
    await watching(api)
    api.put(ADAPTER, adapter("two"))
    api.set_status(ADAPTER, "one", {"phase": "Merging"})
    api.remove(ADAPTER, "one")
    assert await following == [("Added", "two"), ("Modified", "one"), ("Deleted", "one")]
    await changes.aclose()


async def test_after_a_410_what_vanished_meanwhile_is_told(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(ADAPTER, adapter("one"))
    api.put(ADAPTER, adapter("two"))
    changes = client.watch("adapters")
    assert await take(changes, 2) == [("Added", "one"), ("Added", "two")]
    following = asyncio.ensure_future(take(changes, 2))
    del api.objects["loraadapters", "finance", "one"]
    api.put(ADAPTER, adapter("three"))
    api.compact()
    assert await following == [("Deleted", "one"), ("Added", "three")]
    await changes.aclose()


async def test_a_cut_stream_is_taken_up_where_it_was(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(ADAPTER, adapter("one"))
    api.fail(0, times=2, match="watch=true")
    changes = client.watch("adapters")
    assert await take(changes, 1) == [("Added", "one")]
    following = asyncio.ensure_future(take(changes, 1))
    await watching(api, streams=3)
    api.put(ADAPTER, adapter("two"))
    assert await following == [("Added", "two")]
    await changes.aclose()


async def test_streams_that_held_for_long_are_taken_up_for_ever_without_an_event(
    client: LoRAClient, api: FakeApiServer
) -> None:
    api.broken_streams = 20  # more than the tries of one backoff
    patient = Backoff(base_seconds=0.0, cap_seconds=0.0)  # so every stream lives longer than the longest pause
    changes = watch_objects(client.api, ADAPTER, namespace="finance", backoff=patient)
    following = asyncio.ensure_future(anext(changes))
    await watching(api, streams=21)
    api.put(ADAPTER, adapter("one"))
    async with asyncio.timeout(10):
        assert (await following).object["metadata"]["name"] == "one"
    await changes.aclose()


async def test_streams_that_break_at_once_are_given_up(client: LoRAClient, api: FakeApiServer, quick: Backoff) -> None:
    api.broken_streams = 20
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="the stream broke"):
            await anext(watch_objects(client.api, ADAPTER, namespace="finance", backoff=quick))
    assert api.broken_streams == 20 - quick.attempts


async def test_a_watch_takes_up_renewed_credentials(
    client: LoRAClient, api: FakeApiServer, server: str, kubeconfig: Path, quick: Backoff
) -> None:
    api.put(ADAPTER, adapter("one"))
    changes = watch_objects(client.api, ADAPTER, namespace="finance", backoff=quick)
    await anext(changes)
    api.token = "fresh"
    write_kubeconfig(kubeconfig, server=server, token="fresh")
    following = asyncio.ensure_future(anext(changes))
    await watching(api, streams=2)
    api.put(ADAPTER, adapter("two"))
    async with asyncio.timeout(10):
        assert (await following).object["metadata"]["name"] == "two"
    await changes.aclose()


async def test_a_watch_whose_credentials_stay_wrong_ends_after_one_renewal(
    client: LoRAClient, api: FakeApiServer, quick: Backoff
) -> None:
    api.put(ADAPTER, adapter("one"))
    changes = watch_objects(client.api, ADAPTER, namespace="finance", backoff=quick)
    await anext(changes)
    api.token = "another"
    with pytest.raises(Unauthorized, match="log in again"):
        await anext(changes)
    assert sum("watch=true" in line for line in api.requests) == 2


async def test_a_single_object_is_watched_by_name(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(ADAPTER, adapter("other"))
    api.put(ADAPTER, adapter("one"))
    changes = client.watch("adapters", name="one")
    assert await take(changes, 1) == [("Added", "one")]
    await changes.aclose()


async def test_waiting_returns_the_object_once_it_is_so(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(ADAPTER, adapter())
    waiting = asyncio.ensure_future(
        client.wait_for("adapters", "fin", lambda one: one.ready is True, timeout_seconds=10)
    )
    await watching(api)
    api.set_status(ADAPTER, "fin", {"phase": "Ready", "conditions": conditions(ready="True", reason="Ready")})
    assert (await waiting).phase == "Ready"


async def test_waiting_in_vain_tells_what_was_seen_last(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(ADAPTER, adapter())
    api.set_status(
        ADAPTER, "fin", {"phase": "Merging", "conditions": conditions(ready="False", reason="Merging", message="Job j")}
    )
    with pytest.raises(TimedOut, match=r"adapter fin after 0.1 s: Merging \(Merging\): Job j"):
        await client.wait_for("adapters", "fin", lambda _: False, timeout_seconds=0.1)


async def test_what_is_deleted_while_it_is_waited_for_ends_the_waiting(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(ADAPTER, adapter())
    waiting = asyncio.ensure_future(client.wait_for("adapters", "fin", lambda _: False, timeout_seconds=10))
    await watching(api)
    api.remove(ADAPTER, "fin")
    with pytest.raises(NotFound, match="deleted"):
        await waiting

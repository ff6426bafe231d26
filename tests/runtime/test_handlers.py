"""Events become keys in the queue: nobody who waits for a change is forgotten, and a list that says nothing new costs nothing."""

from typing import Any

import kopf
import pytest

from lora_operator.api.kinds import ADAPTER, JOB, LORA_DEPLOYMENT
from lora_operator.handlers import configure, event_handler
from lora_operator.kube.api import PAGE
from lora_operator.runtime.cache import Cache
from lora_operator.runtime.queue import Key, Queue

Json = dict[str, Any]
ADAPTER_KEY, DEPLOYMENT_KEY = Key("loraadapters", "shop", "fin-v1"), Key("loradeployments", "shop", "fin")


class Seen(Queue):
    """A queue that only remembers what was asked of it."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()

    def add(self, key: Key, *, after: float = 0.0, resync: bool = False) -> None:
        self.keys.add(key)


def adapter(version: str) -> Json:
    return {"metadata": {"namespace": "shop", "name": "fin-v1", "uid": "a", "resourceVersion": version}}


@pytest.fixture
def cache() -> Cache:
    cache = Cache()
    cache.put(
        LORA_DEPLOYMENT,
        {
            "metadata": {"namespace": "shop", "name": "fin", "uid": "d", "resourceVersion": "1"},
            "spec": {"adapterRef": {"name": "fin-v1"}},
        },
    )
    return cache


async def test_the_operators_own_write_of_an_adapter_wakes_the_deployment_that_waits_for_it(cache: Cache) -> None:
    written = adapter("7")
    cache.put(ADAPTER, written)  # what the write returned
    queue = Seen()
    await event_handler(ADAPTER, cache=cache, queue=queue)(event={"type": "MODIFIED", "object": written})
    assert queue.keys == {ADAPTER_KEY, DEPLOYMENT_KEY}


@pytest.mark.parametrize(
    ("version", "woken"),
    [
        pytest.param("7", set(), id="what is known already wakes nobody"),
        pytest.param("8", {ADAPTER_KEY, DEPLOYMENT_KEY}, id="what changed between the lists wakes all who care"),
    ],
)
async def test_the_first_list_of_a_watch(cache: Cache, version: str, woken: set[Key]) -> None:
    cache.put(ADAPTER, adapter("7"))
    queue = Seen()
    await event_handler(ADAPTER, cache=cache, queue=queue)(event={"type": None, "object": adapter(version)})
    assert queue.keys == woken


async def test_a_deleted_object_is_forgotten_and_wakes_its_owner(cache: Cache) -> None:
    cache.put(ADAPTER, adapter("7"))
    queue = Seen()
    await event_handler(ADAPTER, cache=cache, queue=queue)(event={"type": "DELETED", "object": adapter("9")})
    assert cache.get(ADAPTER, namespace="shop", name="fin-v1") is None
    assert ADAPTER_KEY in queue.keys


async def test_a_strangers_job_concerns_nobody(cache: Cache) -> None:
    job = {"metadata": {"namespace": "shop", "name": "j", "uid": "j", "resourceVersion": "1", "labels": {}}}
    queue = Seen()
    await event_handler(JOB, cache=cache, queue=queue)(event={"type": "ADDED", "object": job})
    assert queue.keys == set()
    assert cache.get(JOB, namespace="shop", name="j") is None


def test_the_objects_of_a_first_list_do_not_stay_with_kopf() -> None:
    settings = kopf.OperatorSettings()
    configure(settings)
    assert settings.watching.chunk_size == PAGE
    assert settings.queueing.idle_timeout < 1  # 5 s of kopf's own are longer than the whole start

"""The calls themselves: tried again where that is harmless, and every final answer a sentence with a way out."""

from typing import Any

import pytest

from lora_client.client import LoRAClient
from lora_client.errors import ClientError, Conflict, Forbidden, NoCluster, NotFound, Refused, TimedOut, Unavailable
from lora_client.names import ADAPTER, JOB, LORA_DEPLOYMENT
from tests.client.objects import adapter, deployment
from tests.fakes.api_server import FakeApiServer

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 500}, id="an internal error"),
        pytest.param({"status": 503}, id="an overloaded server"),
        pytest.param({"status": 429}, id="too many requests"),
        pytest.param({"status": 0}, id="a cut connection"),
        pytest.param({"status": 0, "after": True}, id="a cut connection after the write was done"),
        pytest.param({"status": 504, "after": True}, id="a gateway that lost the answer"),
    ],
)
async def test_an_apply_survives(client: LoRAClient, api: FakeApiServer, fault: dict[str, Any]) -> None:
    api.fail(times=3, **fault)
    stored = await client.apply(adapter())
    assert stored.name == "fin"
    assert api.peek(ADAPTER, "fin")["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("why", "words"),
    [
        pytest.param(
            ".spec.merge.stratgy: field not declared in schema",
            "LoRAAdapter finance/fin: spec.merge.stratgy: field not declared in schema; ",
            id="a misspelt field",
        ),
        pytest.param(
            "errors:\n  .spec.adapters: expected list, got &{7}\n  .spec.basee: field not declared in schema",
            "LoRAAdapter finance/fin: spec.adapters: expected list, got &{7}, spec.basee: field not declared in schema; ",
            id="several fields",
        ),
    ],
)
async def test_an_apply_that_the_schema_forbids_is_refused_at_once(
    client: LoRAClient, api: FakeApiServer, pauses: list[float], why: str, words: str
) -> None:
    """Server-side apply answers with 500 where the schema knows no such field."""
    said = "failed to create typed patch object (finance/fin; loraops.dev/v1alpha1, Kind=LoRAAdapter): "
    api.fail(500, times=99, message=said + why)
    with pytest.raises(Refused) as refused:
        await client.apply(adapter())
    assert str(refused.value).startswith(words)
    assert pauses == []


async def test_the_servers_retry_after_is_believed(client: LoRAClient, api: FakeApiServer, pauses: list[float]) -> None:
    api.fail(429, headers={"Retry-After": "7"})
    await client.list_adapters()
    assert pauses == [7.0]


async def test_the_waits_grow_and_end(client: LoRAClient, api: FakeApiServer, pauses: list[float]) -> None:
    api.fail(503, times=99)
    with pytest.raises(Unavailable, match=r"failed 6 times: .* 503"):
        await client.list_adapters()
    assert pauses == [0.4, 0.8, 1.6, 3.2, 5.0]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param({"status": 500}, Unavailable, id="an internal error: it may have been done"),
        pytest.param(
            {"status": 503, "headers": {"Retry-After": "1"}, "after": True},
            Unavailable,
            id="a 503 that asks to come again: it may have been done",
        ),
        pytest.param({"status": 0, "after": True}, Unavailable, id="a lost answer: it was done"),
    ],
)
async def test_a_create_is_not_sent_twice_after(
    client: LoRAClient, api: FakeApiServer, fault: dict[str, Any], error: type[ClientError]
) -> None:
    api.fail(times=1, **fault)
    with pytest.raises(error):
        await client.api.create(JOB, {"metadata": {"name": "j", "namespace": "finance"}})
    assert sum(line.startswith("POST") for line in api.requests) == 1


async def test_a_create_is_sent_again_after_429(client: LoRAClient, api: FakeApiServer) -> None:
    api.fail(429)
    await client.api.create(JOB, {"metadata": {"name": "j", "namespace": "finance"}})
    assert api.peek(JOB, "j")["metadata"]["name"] == "j"


async def test_a_slow_server_is_told_as_such(kubeconfig: Any, api: FakeApiServer, quick: Any) -> None:
    import asyncio  # noqa: PLC0415

    async def slow(*_: Any) -> Any:
        await asyncio.sleep(5)

    api._route = slow  # type: ignore[method-assign]
    async with LoRAClient.connect(kubeconfig=str(kubeconfig), backoff=quick, timeout_seconds=0.05) as client:
        with pytest.raises(TimedOut, match="no answer in time, 6 tries"):
            await client.list_adapters()


async def test_a_missing_right_says_which_and_how_to_look_it_up(client: LoRAClient, api: FakeApiServer) -> None:
    api.fail(403, message='loraadapters.loraops.dev is forbidden: User "ana" cannot list resource')
    with pytest.raises(Forbidden, match=r"ana.*auth can-i"):
        await client.list_adapters()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        pytest.param(
            ["financial-v1", "financial-v2", "legal"],
            "there is financial-v2, financial-v1 and 1 more",
            id="the nearest first",
        ),
        pytest.param(["legal"], "there is legal:", id="none is near: what there is"),
        pytest.param([], "there is no other", id="there is none at all"),
    ],
)
async def test_an_unknown_name_is_answered_with_others(
    client: LoRAClient, api: FakeApiServer, names: list[str], words: str
) -> None:
    for name in names:
        api.put(ADAPTER, adapter(name))
    with pytest.raises(NotFound, match=words) as found:
        await client.get_adapter("financial-v22")
    assert "namespace finance" in str(found.value)


async def test_a_field_of_another_manager_is_not_taken_without_force(client: LoRAClient, api: FakeApiServer) -> None:
    await client.apply(deployment(ref="one"))
    api.own(LORA_DEPLOYMENT, "fin", ("adapterRef", "name"), "argocd-controller")
    with pytest.raises(Conflict, match=r"argocd-controller.*force"):
        await client.apply(deployment(ref="two"))
    assert api.peek(LORA_DEPLOYMENT, "fin")["spec"]["adapterRef"]["name"] == "one"
    await client.apply(deployment(ref="two"), force=True)
    assert api.peek(LORA_DEPLOYMENT, "fin")["spec"]["adapterRef"]["name"] == "two"


async def test_what_the_schema_refuses_is_told_in_the_servers_words(client: LoRAClient) -> None:
    await client.apply(adapter())
    with pytest.raises(Refused, match="immutable"):
        await client.apply(adapter(merge={"strategy": "TIES"}))


async def test_long_lists_are_read_to_the_end(client: LoRAClient, api: FakeApiServer) -> None:
    api.page = 7
    for number in range(20):
        api.put(ADAPTER, adapter(f"a{number:02}"))
    assert [one.name for one in await client.list_adapters()] == [f"a{number:02}" for number in range(20)]


async def test_all_namespaces_are_listed_by_namespace_and_name(client: LoRAClient, api: FakeApiServer) -> None:
    for namespace in ("b", "a"):
        api.put(ADAPTER, adapter("x"), namespace=namespace)
    assert [one.namespace for one in await client.list_adapters(all_namespaces=True)] == ["a", "b"]
    assert await client.list_adapters() == []


async def test_an_applied_manifest_without_a_namespace_goes_to_the_contexts(
    client: LoRAClient, api: FakeApiServer
) -> None:
    await client.apply(adapter())
    assert api.peek(ADAPTER, "fin", namespace="finance")["metadata"]["namespace"] == "finance"


async def test_a_manifest_of_another_kind_is_refused_before_anything_is_sent(
    client: LoRAClient, api: FakeApiServer
) -> None:
    with pytest.raises(ClientError, match="found v1 ConfigMap"):
        await client.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
    assert api.requests == []


async def test_deleting_what_is_gone_is_success(client: LoRAClient) -> None:
    await client.delete_adapter("nobody")


def test_exit_codes_tell_what_the_caller_can_correct() -> None:
    correctable = {NotFound, Conflict, Refused}
    assert {error.exit_code for error in correctable} == {2}
    assert {error.exit_code for error in (NoCluster, Unavailable, Forbidden, TimedOut)} == {1}

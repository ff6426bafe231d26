"""Leader election: one writer, taken over only from a record that stands still, left at once when it cannot be renewed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from lora_operator.api.kinds import LEASE, SERVICE, Kind
from lora_operator.kube.api import WRITES_IN_FLIGHT
from lora_operator.kube.client import Kube
from lora_operator.kube.errors import Retryable
from lora_operator.kube.leader_only import LeaderOnly
from lora_operator.runtime import lease
from lora_operator.runtime.lease import LeaderElection, LeaseLost
from tests.fakes.cluster import Cluster


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same arithmetic with a hundredth of the time."""
    for name in ("DURATION", "RENEW_WITHIN", "RETRY"):
        monkeypatch.setattr(lease, name, getattr(lease, name) / 100)


def election(cluster: Any, identity: str) -> LeaderElection:
    return LeaderElection(kube=cluster, namespace="shop", name="lora-operator", identity=identity)


def holder(cluster: Cluster) -> str:
    found = cluster.peek(LEASE, "lora-operator")
    return str((found or {}).get("spec", {}).get("holderIdentity"))


async def test_the_first_takes_a_lease_that_does_not_exist() -> None:
    cluster = Cluster()
    await election(cluster, "one").acquire()
    assert holder(cluster) == "one"


async def test_a_second_waits_while_the_first_renews() -> None:
    cluster = Cluster()
    first = election(cluster, "one")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(election(cluster, "two").acquire())
    await asyncio.sleep(0.5)
    assert (holder(cluster), waiting.done()) == ("one", False)
    for task in (holding, waiting):
        task.cancel()
    await asyncio.gather(holding, waiting, return_exceptions=True)


async def test_a_second_takes_over_when_the_first_is_dead() -> None:
    cluster = Cluster()
    await election(cluster, "one").acquire()
    await asyncio.wait_for(election(cluster, "two").acquire(), timeout=5)
    assert holder(cluster) == "two"


async def test_a_leader_that_finds_another_holder_ends() -> None:
    cluster = Cluster()
    first = election(cluster, "one")
    await first.acquire()
    cluster.edit(LEASE, "lora-operator", lambda obj: obj["spec"].update(holderIdentity="two"))
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(first.hold(), timeout=5)


async def test_a_leader_that_cannot_reach_the_api_ends_in_time() -> None:
    class Silent(Cluster):
        async def get(self, kind: Any, **_: Any) -> Any:
            raise Retryable("no answer")

    first = election(Silent(), "one")
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(first.hold(), timeout=5)


async def test_a_released_lease_is_taken_at_once() -> None:
    cluster = Cluster()
    first = election(cluster, "one")
    await first.acquire()
    await first.release()
    assert not first.leads()
    await asyncio.wait_for(election(cluster, "two").acquire(), timeout=0.1)
    assert holder(cluster) == "two"


SERVED: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "s", "namespace": "shop", "labels": {}},
    "spec": {"port": 1},
}
OTHER = {**SERVED, "spec": {"port": 2}}
WRITES: dict[str, Callable[[Kube, str], Awaitable[Any]]] = {
    "create": lambda kube, _: kube.create(SERVICE, {**OTHER, "metadata": {**OTHER["metadata"], "name": "t"}}),
    "apply": lambda kube, _: kube.apply(SERVICE, OTHER, force=True),
    "patch": lambda kube, _: kube.patch(SERVICE, namespace="shop", name="s", body={"spec": {"port": 2}}),
    "delete": lambda kube, uid: kube.delete(SERVICE, namespace="shop", name="s", uid=uid),
}


def world(cluster: Cluster) -> list[tuple[str, int]]:
    return sorted((found["metadata"]["name"], found["spec"]["port"]) for found in cluster.every(SERVICE))


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_leader_that_was_stopped_for_longer_than_its_lease_writes_nothing_when_it_wakes_t9(
    write: Callable[[Kube, str], Awaitable[Any]],
) -> None:
    cluster = Cluster()
    first = election(cluster, "one")
    await first.acquire()
    kube = LeaderOnly(cluster, leads=first.leads)
    uid = (await kube.create(SERVICE, SERVED))["metadata"]["uid"]
    time.sleep(lease.RENEW_WITHIN * 1.5)  # noqa: ASYNC251 (like SIGSTOP: nothing of this process runs, its election neither)
    with pytest.raises(Retryable, match="lease was not renewed in time"):
        await write(kube, uid)
    assert world(cluster) == [("s", 1)]
    assert await kube.get(SERVICE, namespace="shop", name="s") is not None, "reading is for everybody"


async def test_writes_that_wait_for_their_turn_look_at_the_lease_when_they_have_it_t9() -> None:
    leads, gate = [True], asyncio.Event()

    class Slow(Cluster):
        async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Any:
            await gate.wait()
            return await super().create(kind, manifest)

    cluster = Slow()
    kube = LeaderOnly(cluster, leads=lambda: leads[0])
    names = [f"s{number}" for number in range(WRITES_IN_FLIGHT + 5)]
    writing = [
        asyncio.create_task(kube.create(SERVICE, {**SERVED, "metadata": {**SERVED["metadata"], "name": name}}))
        for name in names
    ]
    await asyncio.sleep(0)
    leads[0] = False
    gate.set()
    found = await asyncio.gather(*writing, return_exceptions=True)
    assert [isinstance(one, Retryable) for one in found] == [False] * WRITES_IN_FLIGHT + [True] * 5
    assert len(world(cluster)) == WRITES_IN_FLIGHT


async def test_a_leader_that_renews_goes_on_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_WITHIN", 1.0)  # a slow machine's pauses are no lost Lease
    cluster = Cluster()
    first = election(cluster, "one")
    await first.acquire()
    kube = LeaderOnly(cluster, leads=first.leads)
    uid = (await kube.create(SERVICE, SERVED))["metadata"]["uid"]
    holding = asyncio.create_task(first.hold())
    await asyncio.sleep(1.5)
    for write in WRITES.values():
        await write(kube, uid)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert world(cluster) == [("t", 2)]


async def test_who_never_had_the_lease_or_lost_it_does_not_lead() -> None:
    cluster = Cluster()
    first = election(cluster, "one")
    assert not first.leads()
    await first.acquire()
    assert first.leads()
    cluster.edit(LEASE, "lora-operator", lambda obj: obj["spec"].update(holderIdentity="two"))
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(first.hold(), timeout=5)
    assert not first.leads()

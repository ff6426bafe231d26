"""Leader election: one writer, taken over only from a record that stands still, left at once when it cannot be renewed."""

import asyncio
from typing import Any

import pytest

from lora_operator.api.kinds import LEASE
from lora_operator.kube.errors import Retryable
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
    await asyncio.wait_for(election(cluster, "two").acquire(), timeout=0.1)
    assert holder(cluster) == "two"

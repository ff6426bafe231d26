"""T8: every strategy at once under load, and kill -9 of the operator after writes of its own: same end, no step twice, nothing lost.

`make test` kills after seeded numbers of writes, `make test-full` after every write that is seen.
"""

import itertools
import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import read, wait_for
from tests.e2e.simulated import ask, deployment, host, serves
from tests.e2e.traffic import Traffic
from tests.e2e.writes import Killer

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
SEED = 20260101
KILLS = 5
SPLIT: Json = {"split": {"stable": 50, "candidate": 50}, "successMetrics": ["conversion"]}
STEPS = [{"setWeight": 25}, {"pause": {"seconds": 3}}, {"setWeight": 50}, {"pause": {"seconds": 3}}]
STRATEGIES: dict[str, Json] = {
    "k-replace": {"type": "Replace"},
    "k-blue-green": {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 3, "keepPreviousSeconds": 5}},
    "k-canary": {"type": "Canary", "canary": {"steps": STEPS}},
    "k-ab-test": {
        "type": "ABTest",
        "abTest": {**SPLIT, "match": {"header": {"name": "x-variant", "value": "b"}}},
    },
}


def seeded() -> Iterator[int]:
    """Writes between two kills: over a rollout of four they fall into every phase."""
    chance = random.Random(SEED)
    return iter([chance.randint(2, 9) for _ in range(KILLS)])


@pytest.mark.parametrize(
    ("gaps", "requests"),
    [
        pytest.param(seeded, 1_000, id="after seeded writes"),
        pytest.param(lambda: itertools.repeat(1, 150), 10_000, id="after every write", marks=pytest.mark.full),
    ],
)
def test_whenever_the_operator_is_killed_every_rollout_ends_the_same_t8_t9(
    cluster: Cluster, shop: str, gaps: Any, requests: int
) -> None:
    first: dict[str, str] = {}
    loads: dict[str, Traffic] = {}
    with ExitStack() as running:
        for name, strategy in STRATEGIES.items():
            cluster.apply(deployment(shop, name, answer="v1", strategy=strategy, replicas=1))
        for name in STRATEGIES:
            found = wait_for(cluster, "loradeployment", name, serves(), namespace=shop, seconds=120)
            first[name] = found["status"]["stable"]["revision"]
            loads[name] = running.enter_context(
                Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=1 / 12)
            )
        with Killer(cluster, gaps=gaps()) as killer:
            for name, strategy in STRATEGIES.items():
                cluster.apply(deployment(shop, name, answer="v2", strategy=strategy, replicas=1))
            testing = lambda found: found["status"].get("step", {}).get("sub") == "Test"  # noqa: E731
            wait_for(cluster, "loradeployment", "k-ab-test", testing, namespace=shop, seconds=900)
            ask(cluster, shop, "k-ab-test", "promote")
            for name in STRATEGIES:
                wait_for(cluster, "loradeployment", name, serves(first[name]), namespace=shop, seconds=900)
                gone = lambda found: "previous" not in found["status"]  # noqa: E731
                wait_for(cluster, "loradeployment", name, gone, namespace=shop, seconds=900)
        for name, load in loads.items():
            enough = lambda _, load=load: load.seen.answers.total() + load.seen.streams >= requests  # noqa: E731
            wait_for(cluster, "loradeployment", name, enough, namespace=shop, seconds=requests / 5)
    for name, load in loads.items():
        assert dict(load.seen.failures) == {}, f"{name}, killed after {killer.kills}"
        found = read(cluster, "loradeployment", name, namespace=shop)
        assert found is not None
        status = found["status"]
        assert [entry["result"] for entry in status["history"]] == ["Succeeded", "Succeeded"]
        assert (status["stable"]["weight"], "candidate" in status, "step" in status) == (100, False, False)
        cluster.kubectl("delete", "loradeployment", name, "-n", shop, "--wait=false")
    assert len(killer.kills) >= KILLS

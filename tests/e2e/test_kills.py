"""T8: kill -9 of the operator after its k-th write, before it knows that it was taken, under load: same end, no step twice, no pause begun
anew, nothing lost.

`make test`: one kill in each phase of each strategy, after a seeded write of that phase.
`make test-full`: a kill after every write, 10 000 requests per strategy; docs/benchmarks/kills.json is the result.
"""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.api_proxy import ApiProxy, in_between
from tests.e2e.kills import Aim, Killer, each_write, in_each_phase
from tests.e2e.served import Served
from tests.e2e.simulated import at, host, serves
from tests.e2e.traffic import Traffic
from tests.e2e.truth import SKEW

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks" / "kills.json"
SEED = 20260101
MOST = 200  # kills of one rollout
STEPS = [{"setWeight": 25}, {"pause": {"seconds": 4}}, {"setWeight": 50}, {"pause": {}}]
TEST: Json = {
    "split": {"stable": 50, "candidate": 50},
    "successMetrics": ["conversion"],
    "match": {"header": {"name": "x-variant", "value": "b"}},
}
CANARY: Json = {"type": "Canary", "canary": {"steps": STEPS}}


@dataclass(frozen=True)
class Case:
    """A rollout and what it goes through."""

    strategy: Json
    phases: dict[str, int]  # to kill in, with the writes that each of them has at least
    weights: tuple[int, ...] = (0, 100)  # of the candidate, one after the other
    waits_in: str = ""  # phase in which somebody has to ask
    verb: str = ""  # for what

    @property
    def is_aborted(self) -> bool:
        return self.verb == "abort"


CASES: dict[str, Case] = {
    "replace": Case({"type": "Replace"}, {"Replacing": 4, "Promoting": 2, "Stable": 2}),
    "blue-green": Case(
        {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 3, "keepPreviousSeconds": 5}},
        {"Preparing": 4, "Switching": 2, "Promoting": 1, "Stable": 2},
    ),
    "canary": Case(
        CANARY,
        {"Preparing": 4, "Stepping": 6, "Paused": 1, "Promoting": 2, "Stable": 2},
        weights=(0, 25, 50, 100),
        waits_in="Paused",
        verb="promote",
    ),
    "canary-aborted": Case(
        CANARY, {"Paused": 1, "Aborting": 4, "Aborted": 1}, weights=(0, 25, 50, 0), waits_in="Paused", verb="abort"
    ),
    "ab-test": Case(
        {"type": "ABTest", "abTest": TEST},
        {"Preparing": 4, "Testing": 3, "Promoting": 2, "Stable": 2},
        weights=(0, 50, 100),
        waits_in="Testing",
        verb="promote",
    ),
}


class Rollout:
    """v1 to v2, watched."""

    def __init__(self, cluster: Cluster, *, namespace: str, case: str, every: float) -> None:
        self.case = CASES[case]
        self.served = Served(cluster, namespace=namespace, name=f"k-{case}", replicas=1, strategy=self.case.strategy)
        self.served.load = Traffic(url=cluster.gateway_url, host=host(self.served.name), model="sim", every=every)

    def run(self, cluster: Cluster, proxy: ApiProxy, *, aim: Aim, requests: int, seconds: float) -> Killer:
        """From v1 to the end, and on until there were so many requests."""
        served = self.served
        served.declare("v1")
        self.first = served.until(serves(), seconds=120)["stable"]["revision"]
        killer = Killer(
            cluster, proxy, namespace=served.namespace, name=served.name, phase=served.status["phase"], aim=aim
        )
        with served.load, served.watched() as self.truth:
            with killer:
                served.declare("v2")
                self.second = self._finish(seconds=seconds)
            served.soon(
                lambda: served.pods(self._gone) == [], what="the other revision still has pods", seconds=seconds
            )
            served.soon(lambda: self.requests >= requests, what="too few requests", seconds=seconds)
        return killer

    @property
    def _gone(self) -> str:
        """The revision that serves no more; its pods take their time to finish what they began."""
        return self.second if self.case.is_aborted else self.first

    @property
    def requests(self) -> int:
        seen = self.served.load.seen
        return seen.answers.total() + seen.streams + seen.failures.total()

    def _finish(self, *, seconds: float) -> str:
        """The candidate's revision, once it serves alone or is gone."""
        served, case = self.served, self.case
        if case.verb:
            waiting = served.until(lambda found: _waits(found, case.waits_in), seconds=seconds)
            served.ask(case.verb)
            if case.is_aborted:
                served.until(at("Aborted"), seconds=seconds)
                return str(waiting["candidate"]["revision"])
        done = served.until(serves(self.first), seconds=seconds)
        served.until(lambda found: "previous" not in found["status"], seconds=seconds)
        return str(done["stable"]["revision"])

    def check(self) -> None:
        """The end, and the way to it."""
        status, truth, aborted = self.served.status, self.truth, self.case.is_aborted
        serves_now = self.first if aborted else self.second
        assert self.served.load.seen.lost == ""
        assert [entry["result"] for entry in status["history"]] == [RESULT[aborted], "Succeeded"]
        assert (status["phase"], status["stable"]["weight"]) == ("Aborted" if aborted else "Stable", 100)
        assert self.served.weights == {serves_now: 100}
        assert self.served.pods(self._gone) == []
        assert {"step", "pause", "previous"} & set(status) == set()
        assert tuple(truth.weights_of(self.second)) == self.case.weights, "no step skipped or repeated"
        assert truth.longest(lambda weights, ready: any(not ready.get(one) for one in weights)) < SKEW, "T1"
        begun = entered(truth.statuses)
        assert begun == sorted(begun), "no step again"
        assert all(len(ends) == 1 for ends in deadlines(truth.statuses).values()), "no pause begun anew"
        assert len({found["step"]["startedAt"] for found in truth.statuses if "step" in found}) == 1


RESULT = {False: "Succeeded", True: "RolledBack"}


def _waits(found: Json, phase: str) -> bool:
    """Somebody has to ask now: the last pause, or a test that runs."""
    status = found["status"]
    return status["phase"] == phase and status["step"]["sub"] in ("AwaitPromote", "Test")


def entered(statuses: list[Json]) -> list[int]:
    """Indexes of steps, one after the other."""
    found: list[int] = []
    for status in statuses:
        index = status.get("step", {}).get("index")
        if index is not None and (not found or found[-1] != index):
            found.append(index)
    return found


def deadlines(statuses: list[Json]) -> dict[tuple[int | None, str], set[str]]:
    """When each pause ends, as it was ever said."""
    found: dict[tuple[int | None, str], set[str]] = {}
    for status in statuses:
        step = status.get("step", {})
        if step.get("sub") in ("Bake", "Delay"):
            found.setdefault((step.get("index"), step["sub"]), set()).add(step["deadline"])
    return found


def seeded(case: str) -> dict[str, int]:
    """After which write of each phase."""
    chance = random.Random(f"{SEED} {case}")
    return {phase: chance.randint(1, writes) for phase, writes in CASES[case].phases.items()}


@pytest.fixture(scope="module")
def proxy(cluster: Cluster, shop: str) -> Iterator[ApiProxy]:
    """Through which the operator speaks with the API server; other tests find it as it was."""
    with in_between(cluster) as proxy:
        yield proxy


@pytest.mark.parametrize("case", CASES)
def test_the_operator_is_killed_in_each_phase_and_the_rollout_ends_the_same_t8(
    cluster: Cluster, proxy: ApiProxy, shop: str, case: str
) -> None:
    aims = seeded(case)
    rollout = Rollout(cluster, namespace=shop, case=case, every=1 / 30)
    killer = rollout.run(cluster, proxy, aim=in_each_phase(aims), requests=1_000, seconds=120)
    rollout.check()
    assert [(kill.phase, kill.number) for kill in killer.kills] == list(aims.items())
    rollout.served.delete("loradeployment", rollout.served.name, "--wait=false")


@pytest.mark.full
@pytest.mark.parametrize("case", CASES)
def test_the_operator_is_killed_after_every_write_and_the_rollout_ends_the_same_t8(
    cluster: Cluster, proxy: ApiProxy, shop: str, case: str
) -> None:
    began = time.monotonic()
    rollout = Rollout(cluster, namespace=shop, case=case, every=1 / 50)
    killer = rollout.run(cluster, proxy, aim=each_write(MOST), requests=10_000, seconds=1_800)
    record(case, rollout, killer, seconds=time.monotonic() - began)
    rollout.check()
    assert sum(CASES[case].phases.values()) <= len(killer.kills) < MOST
    assert len(killer.kills) == killer.writes
    rollout.served.delete("loradeployment", rollout.served.name, "--wait=false")


def record(case: str, rollout: Rollout, killer: Killer, *, seconds: float) -> None:
    """Into the result file, good or bad."""
    seen = rollout.served.load.seen
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found[case] = {
        "requests": rollout.requests,
        "failed": dict(seen.failures),
        "streams": seen.streams,
        "seconds": round(seconds),
        "writes": killer.writes,
        "killedAfter": [f"{kill.phase} {kill.number}: {kill.after}" for kill in killer.kills],
    }
    RESULTS.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")

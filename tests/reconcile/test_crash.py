"""T8: kill -9 of the operator before or after any write of any scenario ends in the same final state.

The invariants T1, T2, T6, T19 and T20 are checked by the simulated cluster at every write of every run.
"""

import asyncio
import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pytest

from lora_operator.api.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    HTTP_ROUTE,
    INGRESS,
    LORA_DEPLOYMENT,
    POD,
    SERVICE,
)
from tests.fakes.cluster import Cluster
from tests.fakes.rollout_driver import CONVERSION, NAME, Driver, ask, point_to, started
from tests.fakes.telemetry import Load, telemetry_of

Json = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """What a person does, one thing after the other; each is settled before the next."""

    acts: tuple[Callable[[Driver], None], ...]
    gpus: int = 2
    bad: str = ""  # adapter that never becomes ready
    how: str = "crash"
    downtime: bool = False
    spec: Json | None = None
    profiles: Json | None = None
    load: Load | None = None  # requests to the pods; None: nobody counts any
    hasty: bool = False  # the third act comes while the second is in motion
    halts: tuple[
        Callable[[Json], bool] | None, ...
    ] = ()  # by act: what status says when the next act comes; None: settled


def _nothing(_: Driver) -> None:
    """The first deployment is act enough."""


def _delete(driver: Driver) -> None:
    driver.cluster.edit(
        LORA_DEPLOYMENT, NAME, lambda obj: obj["metadata"].update(deletionTimestamp="2026-01-01T13:00:00Z")
    )


def _to_ingress(driver: Driver) -> None:
    driver.edit(lambda spec: spec.update(traffic=INGRESS_TRAFFIC))


def _back(driver: Driver) -> None:
    ask(driver, "rollback-to", f"{_revision(driver, 'v1')}/1")


def _revision(driver: Driver, adapter: str) -> str:
    found = [r for r in driver.cluster.every(CONTROLLER_REVISION) if r["data"]["adapter"] == adapter]
    return str(found[0]["data"]["revision"])


def _ask_candidate(verb: str) -> Callable[[Driver], None]:
    return lambda driver: ask(driver, verb, f"{driver.status['candidate']['revision']}/1")


def _serves(adapter: str) -> Callable[[Json], bool]:
    return lambda status: status.get("phase") == "Stable" and status["stable"]["adapter"] == adapter


def _at(phase: str, sub: str, *, index: int | None = None) -> Callable[[Json], bool]:
    def there(status: Json) -> bool:
        step = status.get("step", {})
        return (status.get("phase"), step.get("sub"), step.get("index")) == (phase, sub, index)

    return there


BLUE_GREEN: Json = {
    "strategy": {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 5, "keepPreviousSeconds": 70}}
}
APPROVED: Json = {
    "strategy": {"type": "BlueGreen", "blueGreen": {"autoPromote": False, "keepPreviousSeconds": 0}},
}
STEPS = [{"setWeight": 50}, {"pause": {"seconds": 5}}, {"pause": {}}]
CANARY: Json = {"replicas": 2, "strategy": {"type": "Canary", "canary": {"steps": STEPS}}}
LONG_STEPS = [{"setWeight": 25}, {"pause": {"seconds": 5}}, {"setWeight": 50}, {"pause": {}}, {"setWeight": 75}]
LONG_CANARY: Json = {"replicas": 4, "strategy": {"type": "Canary", "canary": {"steps": LONG_STEPS}}}

MATCH: Json = {"header": {"name": "x-variant", "value": "b"}}
ROUTERS: list[Json] = [{"ingressClass": "nginx", "kind": "traefik", "url": "http://traefik:8000"}]


def _ab_test(**members: Any) -> Json:
    said = {
        "split": {"stable": 50, "candidate": 50},
        "successMetrics": ["conversion"],
        "durationSeconds": 20,
        "match": MATCH,
    }
    return {"replicas": 2, "strategy": {"type": "ABTest", "abTest": {**said, **members}}, "analysis": CONVERSION}


AB_TEST = _ab_test()
ASSIGNED = _ab_test(split={"stable": 100, "candidate": 0})
MEASURED: Json = {"transformers": {"metricsPath": "/metrics"}}
ANALYSIS: Json = {"intervalSeconds": 10, "metrics": [{"name": "errors", "builtin": "errorRate"}]}
ANALYSED: Json = {
    "replicas": 2,
    "strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 50}, {"analyse": {"seconds": 30}}]}},
    "analysis": ANALYSIS,
}
ANALYSED_SWITCH: Json = {**BLUE_GREEN, "analysis": ANALYSIS}

INGRESS_TRAFFIC: Json = {"ingress": {"className": "nginx", "host": "fin.example.com"}}
AB_TEST_PAUSED: Json = {**_ab_test(onEnd="Pause"), "traffic": INGRESS_TRAFFIC}

SCENARIOS = {
    "the first deployment": Scenario(acts=(_nothing,)),
    "a first deployment that crashes": Scenario(acts=(_nothing,), bad="v1"),
    "replace beside the old version": Scenario(acts=(_nothing, lambda d: point_to(d, "v2"))),
    "replace after the old version": Scenario(acts=(_nothing, lambda d: point_to(d, "v2")), gpus=1, downtime=True),
    "a bad version is rolled back": Scenario(acts=(_nothing, lambda d: point_to(d, "v2")), bad="v2"),
    "a wrong model is rolled back": Scenario(acts=(_nothing, lambda d: point_to(d, "v2")), bad="v2", how="wrong"),
    "a bad version gives the GPU back": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2")), bad="v2", gpus=1, downtime=True
    ),
    "rollback to the version before": Scenario(acts=(_nothing, lambda d: point_to(d, "v2"), _back)),
    "a third version during the second": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), lambda d: point_to(d, "v3")), hasty=True, gpus=3
    ),
    "back to the first during the second": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), lambda d: point_to(d, "v1")), hasty=True
    ),
    "deletion": Scenario(acts=(_nothing, _delete)),
    "plain Service": Scenario(acts=(_nothing, lambda d: point_to(d, "v2")), spec={"traffic": {"service": {}}}),
    "two replicas": Scenario(acts=(_nothing, lambda d: point_to(d, "v2")), gpus=4, spec={"replicas": 2}),
    "blue-green": Scenario(acts=(_nothing, lambda d: point_to(d, "v2")), spec=BLUE_GREEN),
    "blue-green after an approval": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote")), spec=APPROVED
    ),
    "blue-green through the plain Service": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2")), spec={**BLUE_GREEN, "traffic": {"service": {}}}
    ),
    "blue-green aborted during the switch": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("abort")),
        halts=(None, _at("Switching", "Shift")),
        spec=BLUE_GREEN,
    ),
    "back to the warm version": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), lambda d: point_to(d, "v1")),
        halts=(None, _serves("v2")),
        spec=BLUE_GREEN,
    ),
    "a third version takes the GPU of the warm one": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), lambda d: point_to(d, "v3")),
        halts=(None, _serves("v2")),
        spec=BLUE_GREEN,
    ),
    "canary": Scenario(acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote")), gpus=4, spec=CANARY),
    "canary promoted at once": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote-full")),
        halts=(None, _at("Stepping", "Bake", index=1)),
        gpus=4,
        spec=CANARY,
    ),
    "canary aborted": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("abort")), gpus=4, spec=CANARY
    ),
    "canary paused and resumed": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("pause"), _ask_candidate("resume")),
        halts=(None, _at("Stepping", "Bake", index=1)),
        gpus=4,
        spec=CANARY,
    ),
    "canary superseded": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), lambda d: point_to(d, "v3"), _ask_candidate("promote-full")),
        halts=(None, _at("Stepping", "Shift", index=0)),
        gpus=6,
        spec=CANARY,
    ),
    "canary through the plain Service": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote")),
        gpus=4,
        spec={**CANARY, "traffic": {"service": {}}},
    ),
    "canary through the plain Service, aborted": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("abort")),
        gpus=4,
        spec={**CANARY, "traffic": {"service": {}}},
    ),
    "another traffic in the middle of a canary, aborted": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _to_ingress, _ask_candidate("abort")), gpus=4, spec=CANARY
    ),
    "canary through an Ingress": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote")),
        gpus=4,
        spec={**CANARY, "traffic": INGRESS_TRAFFIC},
    ),
    "canary through an Ingress, aborted": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("abort")),
        gpus=4,
        spec={**CANARY, "traffic": INGRESS_TRAFFIC},
    ),
    "canary through an Ingress whose controller is asked": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote")),
        gpus=4,
        spec={**CANARY, "traffic": INGRESS_TRAFFIC, "routers": ROUTERS},
    ),
    "A/B test that nobody wins": Scenario(acts=(_nothing, lambda d: point_to(d, "v2")), gpus=4, spec=AB_TEST),
    "A/B test promoted": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote")),
        halts=(None, _at("Testing", "Test", index=0)),
        gpus=4,
        spec=AB_TEST,
    ),
    "A/B test through an Ingress, paused at its end, then promoted": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote")),
        gpus=4,
        spec=AB_TEST_PAUSED,
    ),
    "A/B test whose clients assign alone, aborted": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("abort")),
        halts=(None, _at("Testing", "Test", index=0)),
        gpus=4,
        spec=ASSIGNED,
    ),
    "blue-green through an Ingress, then deleted": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _delete), spec={**BLUE_GREEN, "traffic": INGRESS_TRAFFIC}
    ),
    "canary that is analysed": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2")), gpus=4, spec=ANALYSED, profiles=MEASURED, load=Load()
    ),
    "canary that is worse": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2")),
        gpus=4,
        spec=ANALYSED,
        profiles=MEASURED,
        load=Load(errors={"v2": 0.3}),
    ),
    "blue-green that is worse": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2")),
        spec=ANALYSED_SWITCH,
        profiles=MEASURED,
        load=Load(errors={"v2": 0.3}),
    ),
    "a long canary": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote")), gpus=8, spec=LONG_CANARY
    ),
    "a long canary through the plain Service": Scenario(
        acts=(_nothing, lambda d: point_to(d, "v2"), _ask_candidate("promote")),
        gpus=8,
        spec={**LONG_CANARY, "traffic": {"service": {}}},
    ),
}
LONG = [name for name in SCENARIOS if "long" in name]


async def play(scenario: Scenario, *, crash_at: tuple[int, str] | None) -> tuple[Cluster, Driver]:
    """The scenario from the beginning, killed once."""
    cluster = Cluster(gpus=scenario.gpus)
    cluster.downtime_allowed = scenario.downtime
    cluster.behaviour = lambda name: scenario.how if name == scenario.bad else "good"
    cluster.crash_at = crash_at
    if scenario.load is not None:
        telemetry_of(cluster).load = scenario.load
    driver = started(cluster, profiles=scenario.profiles, **(scenario.spec or {}))
    for number, (act, halt) in enumerate(zip_longest(scenario.acts, scenario.halts)):
        act(driver)
        if halt is not None:
            await driver.reach(halt)
        elif scenario.hasty and number == 1:
            for _ in range(4):
                await driver.step()
                cluster.tick()
                cluster.note_traffic()
        else:
            await driver.settle()
    return cluster, driver


def final_state(cluster: Cluster) -> Json:
    """Everything that a person or a router could see, without times, uids and versions."""
    kinds = (HTTP_ROUTE, INGRESS, SERVICE, DEPLOYMENT, CONTROLLER_REVISION, DISRUPTION_BUDGET)
    state: Json = {
        f"{kind.kind}/{obj['metadata']['name']}": copy.deepcopy(obj.get("spec", obj.get("data")))
        for kind in kinds
        for obj in cluster.every(kind)
    }
    state["pods"] = sorted(re.sub(r"uid-\d+", "", pod["metadata"]["name"]) for pod in cluster.every(POD))
    resource = cluster.peek(LORA_DEPLOYMENT, NAME)
    status = copy.deepcopy((resource or {}).get("status", {}))
    for condition in status.get("conditions", ()):
        condition.pop("lastTransitionTime")
        condition["message"] = re.sub(r"uid-\d+", "", condition["message"])
        if condition["reason"] in ("AnalysisFailed", "AnalysisPassed"):
            condition["message"] = re.sub(r"[0-9.e+]+", "N", condition["message"])
    for entry in status.get("history", ()):
        for moving in ("startTime", "completionTime", "durationSeconds"):
            entry.pop(moving)
    for request in status.get("lastRequests", {}).values():
        request.pop("time")
    for part, moving in (("step", "startedAt"), ("pause", "since"), ("downtime", "seconds")):
        status.get(part, {}).pop(moving, None)
    status.get("abort", {}).pop("evidence", None)
    status.get("analysis", {}).pop("metrics", None)  # figures depend on when they were read
    if "analysis" in status:
        status["analysis"]["message"] = re.sub(r"[0-9.e+]+", "N", status["analysis"]["message"])
    if "abort" in status:
        status["abort"]["message"] = re.sub(r"uid-\d+", "", status["abort"]["message"])
        if status["abort"]["reason"] == "AnalysisFailed":
            status["abort"]["message"] = re.sub(r"[0-9.e+]+", "N", status["abort"]["message"])
    state["status"] = status
    return state


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] if name in LONG else []) for name in SCENARIOS], ids=str
)
def test_a_crash_at_any_write_ends_in_the_same_state(name: str) -> None:
    scenario = SCENARIOS[name]
    undisturbed, _ = asyncio.run(play(scenario, crash_at=None))
    wanted = final_state(undisturbed)
    for k in range(1, len(undisturbed.writes) + 1):
        for moment in ("before", "after"):
            cluster, _ = asyncio.run(play(scenario, crash_at=(k, moment)))
            assert cluster.crash_at is None, f"write {k} was never reached"
            assert final_state(cluster) == wanted, f"killed {moment} write {k}: {undisturbed.writes[k - 1]}"

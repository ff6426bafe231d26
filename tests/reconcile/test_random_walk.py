"""Whatever people, pods and crashes do, in any order: the invariants hold at every write, and when the world is good again the
declared version serves.

Each example is a list of acts with a few reconciles in between; a failing one is shrunk to the shortest that still fails.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lora_operator.api.kinds import CONTROLLER_REVISION, DEPLOYMENT, HTTP_ROUTE, INGRESS, LORA_DEPLOYMENT, POD, SERVICE
from lora_operator.api.names import LABEL_IN_SERVICE
from tests.fakes.cluster import Cluster
from tests.fakes.rollout_driver import CONVERSION, NAME, Driver, ask, point_to, started
from tests.fakes.telemetry import Load, telemetry_of

Json = dict[str, Any]
KINDS = ["Replace", "BlueGreen", "Canary", "ABTest"]
ADAPTERS = ("v1", "v2", "v3")
STEPS = [
    [{"setWeight": 50}],
    [{"setWeight": 50}, {"analyse": {"seconds": 30}}],
    [{"setWeight": 50}, {"pause": {"seconds": 20}}, {"setWeight": 100}, {"pause": {}}],
    [{"setWeight": 0}, {"setWeight": 50}, {"pause": {"timeoutSeconds": 60, "onTimeout": "Promote"}}],
]
ANALYSIS: Json = {
    **CONVERSION,
    "intervalSeconds": 10,
    "metrics": [*CONVERSION["metrics"], {"name": "errors", "builtin": "errorRate"}],
}
BOTH = ("BlueGreen", "Canary", "ABTest")  # need room for two versions
SPLITS = [
    {"split": {"stable": 50, "candidate": 50}},
    {"split": {"stable": 100, "candidate": 0}, "match": {"header": {"name": "x-variant", "value": "b"}}},
    {"split": {"stable": 70, "candidate": 30}, "match": {"cookie": {"name": "v", "value": "always"}}, "onEnd": "Pause"},
]
TEST = {"successMetrics": ["conversion"], "durationSeconds": 40}
ROUTERS: list[Json] = [
    {"ingressClass": "nginx", "kind": "traefik", "url": "http://traefik:8000"},
    {"gatewayClass": "traefik", "kind": "traefik", "url": "http://traefik:8000"},
]
BLUE_GREEN = {"switchDelaySeconds": 10, "keepPreviousSeconds": 100}
INGRESS_TRAFFIC: Json = {"ingress": {"className": "nginx", "host": "fin.example.com"}}
GATEWAY_TRAFFIC: Json = {"gateway": {"parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}]}}
TRAFFIC: dict[str, Json] = {"gateway": GATEWAY_TRAFFIC, "service": {"service": {}}, "ingress": INGRESS_TRAFFIC}


class World:
    """A driver, and what is wrong with each adapter at the moment."""

    def __init__(self, *, gpus: int, kind: str, traffic: str) -> None:
        self.cluster = Cluster(gpus=gpus)
        self.cluster.downtime_allowed = gpus < 6
        self.how = dict.fromkeys(ADAPTERS, "good")
        self.cluster.behaviour = lambda name: self.how.get(name, "good")
        strategy = {
            "type": kind,
            "blueGreen": dict(BLUE_GREEN),
            "canary": {"steps": STEPS[2]},
            "abTest": {**TEST, **SPLITS[2]},
        }
        self.driver = started(
            self.cluster,
            progressDeadlineSeconds=200,
            strategy=strategy,
            traffic=TRAFFIC[traffic],
            replicas=2,
            routers=ROUTERS if gpus == 8 else None,
            analysis=ANALYSIS,
        )
        telemetry_of(self.cluster).load = Load()
        self.nonce = 0

    def spec(self, change: Callable[[Json], None]) -> None:
        self.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: change(obj["spec"]))

    def revision(self, part: str) -> str:
        return str(self.driver.status.get(part, {}).get("revision", "00000000"))

    def request(self, verb: str, part: str) -> None:
        self.nonce += 1
        ask(self.driver, verb, f"{self.revision(part)}/{self.nonce}")

    def stored(self) -> str:
        records = self.cluster.every(CONTROLLER_REVISION)
        return str(records[self.nonce % len(records)]["data"]["revision"]) if records else "00000000"

    def rollback(self) -> None:
        self.nonce += 1
        ask(self.driver, "rollback-to", f"{self.stored()}/{self.nonce}")

    def lose(self, kind: Any) -> None:
        """Somebody deletes one of ours."""
        found = self.cluster.every(kind)
        if found and kind is not POD:
            self.cluster.remove(kind, found[self.nonce % len(found)]["metadata"]["name"])

    async def go(self, steps: int) -> None:
        for _ in range(steps):
            after = await self.driver.step()
            self.cluster.tick(1 if after is None else min(max(after, 1), 20))
            self.cluster.note_traffic()


def acts() -> st.SearchStrategy[Callable[[World], None]]:
    """What may happen."""
    how = st.sampled_from(["good", "crash", "wrong", "never-ready", "image"])
    return st.one_of(
        st.sampled_from(ADAPTERS).map(lambda name: lambda w: point_to(w.driver, name)),
        st.tuples(st.sampled_from(ADAPTERS[1:]), how).map(lambda pair: lambda w: w.how.update({pair[0]: pair[1]})),
        st.sampled_from(["abort", "promote", "promote-full", "pause", "resume"]).map(
            lambda verb: lambda w: w.request(verb, "candidate")
        ),
        st.sampled_from(KINDS).map(lambda kind: lambda w: w.spec(lambda spec: spec["strategy"].update(type=kind))),
        st.sampled_from(SPLITS).map(
            lambda split: lambda w: w.spec(lambda spec: spec["strategy"].update(abTest={**TEST, **split}))
        ),
        st.booleans().map(lambda on: lambda w: setattr(w.cluster, "ingress_takes", on)),
        st.sampled_from(STEPS).map(
            lambda steps: lambda w: w.spec(lambda spec: spec["strategy"].update(canary={"steps": steps}))
        ),
        st.booleans().map(
            lambda on: (
                lambda w: w.spec(lambda spec: spec["strategy"].update(blueGreen={**BLUE_GREEN, "autoPromote": on}))
            )
        ),
        st.sampled_from(sorted(TRAFFIC)).map(
            lambda kind: lambda w: w.spec(lambda spec: spec.update(traffic=TRAFFIC[kind]))
        ),
        st.tuples(st.sampled_from(ADAPTERS), st.sampled_from([0.0, 0.3, 0.9])).map(
            lambda pair: lambda w: telemetry_of(w.cluster).load.errors.update([pair])
        ),
        st.sampled_from(["", "connection refused"]).map(
            lambda said: lambda w: setattr(telemetry_of(w.cluster).load, "silent", said)
        ),
        st.just(lambda w: w.request("retry", "abort")),
        st.just(lambda w: w.rollback()),
        st.booleans().map(lambda on: lambda w: w.spec(lambda spec: spec.update(paused=on))),
        st.integers(1, 2).map(lambda n: lambda w: w.spec(lambda spec: spec.update(replicas=n))),
        st.just(lambda w: w.driver.restart()),
        st.sampled_from([CONTROLLER_REVISION, HTTP_ROUTE, INGRESS]).map(lambda kind: lambda w: w.lose(kind)),
        st.integers(1, 25).map(
            lambda k: lambda w: setattr(w.cluster, "crash_at", (len(w.cluster.writes) + k, "after"))
        ),
    )


async def promoted(world: World) -> None:
    """Whatever waits for a person is told to go on."""
    await world.driver.settle()
    for _ in range(8):
        if world.driver.status.get("phase") != "Paused":
            return
        for verb in ("resume", "promote-full"):
            world.request(verb, "candidate")
            await world.driver.settle()


async def walk(gpus: int, kind: str, traffic: str, script: list[tuple[Callable[[World], None], int]]) -> Driver:
    world = World(gpus=gpus, kind=kind, traffic=traffic)
    await world.go(6)
    for act, steps in script:
        act(world)
        await world.go(steps)
    world.cluster.crash_at = None
    world.how = dict.fromkeys(ADAPTERS, "good")
    telemetry_of(world.cluster).load = Load(rate=0.0)
    world.cluster.ingress_takes = True
    world.spec(lambda spec: spec.update(paused=False))
    world.spec(
        lambda spec: spec["strategy"]["abTest"].update(onEnd="Pause")
    )  # a test that nothing measures promotes nothing
    point_to(world.driver, "v1")
    await promoted(world)
    point_to(world.driver, "v3")
    await promoted(world)
    if world.driver.status.get("heldRevision"):
        ask(world.driver, "retry", f"{world.driver.status['heldRevision']}/end")
        await promoted(world)
    return world.driver


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    gpus=st.sampled_from([1, 2, 4, 8]),
    kind=st.sampled_from(KINDS),
    traffic=st.sampled_from(sorted(TRAFFIC)),
    script=st.lists(st.tuples(acts(), st.integers(0, 40)), max_size=8),
)
def test_the_invariants_hold_and_the_declared_version_serves_in_the_end(
    gpus: int, kind: str, traffic: str, script: list[tuple[Callable[[World], None], int]]
) -> None:
    check_end(asyncio.run(walk(gpus, kind, traffic, script)), gpus=gpus)


@pytest.mark.full
@settings(
    max_examples=1500, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(
    gpus=st.sampled_from([1, 2, 4, 8]),
    kind=st.sampled_from(KINDS),
    traffic=st.sampled_from(sorted(TRAFFIC)),
    script=st.lists(st.tuples(acts(), st.integers(0, 60)), max_size=14),
)
def test_a_long_walk_ends_as_well(
    gpus: int, kind: str, traffic: str, script: list[tuple[Callable[[World], None], int]]
) -> None:
    check_end(asyncio.run(walk(gpus, kind, traffic, script)), gpus=gpus)


def check_end(driver: Driver, *, gpus: int) -> None:
    """The declared version serves, alone; or it is said that there is no room for it."""
    cluster, status = driver.cluster, driver.status
    spec = cluster.peek(LORA_DEPLOYMENT, NAME)["spec"]  # type: ignore[index]
    replicas, kind = spec["replicas"], spec["strategy"]["type"]
    if replicas > gpus:
        assert driver.condition("Ready")["status"] == "False"
        return
    if kind == "ABTest" and "service" in spec["traffic"] and status.get("stable", {}).get("adapter") != "v3":
        assert driver.condition("Ready")["reason"] in ("Invalid", "InsufficientGPU")
        assert cluster.shares() == {status["stable"]["revision"]: 100}
        return
    if kind in BOTH and 2 * replicas > gpus and status.get("stable", {}).get("adapter") != "v3":
        assert driver.condition("Ready")["reason"] == "InsufficientGPU"
        assert cluster.shares() == {status["stable"]["revision"]: 100}
        return
    assert (status["phase"], status["stable"]["adapter"], driver.condition("Ready")["status"]) == (
        "Stable",
        "v3",
        "True",
    )
    assert (cluster.shares(), cluster.forced()) == ({status["stable"]["revision"]: 100}, {})
    alive = {d["metadata"]["name"]: d["spec"]["replicas"] for d in cluster.every(DEPLOYMENT) if d["spec"]["replicas"]}
    assert alive == {f"{NAME}-{status['stable']['revision']}": replicas}
    assert f"{NAME}-{status['stable']['revision']}" in {s["metadata"]["name"] for s in cluster.every(SERVICE)}
    routes = [bool(cluster.every(HTTP_ROUTE)), bool(cluster.every(INGRESS)), cluster.peek(SERVICE, NAME) is not None]
    assert routes == [kind in spec["traffic"] for kind in ("gateway", "ingress", "service")], (
        "one route, the declared one"
    )
    labelled = [pod["metadata"]["name"] for pod in cluster.every(POD) if LABEL_IN_SERVICE in pod["metadata"]["labels"]]
    assert labelled == [] or "service" not in spec["traffic"], "outside a canary no pod needs a label to get requests"

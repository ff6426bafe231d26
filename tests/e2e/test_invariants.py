"""Invariants of rollouts (docs/invariants.md) on the real cluster: one canary under an open-loop load goes through all of it, and no
request is lost and no stream broken from the first test of this file to the last.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import read, wait_for
from tests.e2e.simulated import EVERY, ask, at, deployment, host, no_request_was_lost, serves
from tests.e2e.traffic import Traffic
from tests.e2e.truth import Truth

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
NAME = "invariant"
HALF = [{"setWeight": 50}, {"pause": {}}]


class Served:
    """The one deployment of this file, always back to Stable between two tests."""

    def __init__(self, cluster: Cluster, namespace: str, load: Traffic) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.load = load
        self.answer = "v1"
        self._count = 1

    @property
    def status(self) -> Json:
        found = read(self.cluster, "loradeployment", NAME, namespace=self.namespace)
        assert found is not None
        return dict(found["status"])

    def declare(self, answer: str, *, steps: list[Json] | None = None, replicas: int = 2, **spec: Any) -> None:
        strategy = {"type": "Canary", "canary": {"steps": HALF if steps is None else steps}}
        manifest = deployment(self.namespace, NAME, answer=answer, strategy=strategy, replicas=replicas, **spec)
        manifest["spec"]["runtime"]["drainSeconds"] = 3
        self.cluster.apply(manifest)
        self.declared = answer

    def next(self, **spec: Any) -> str:
        """Another version is declared."""
        self._count += 1
        self.declare(f"v{self._count}", **spec)
        return f"v{self._count}"

    def until(self, holds: Any, *, seconds: float = 60) -> Json:
        return dict(
            wait_for(self.cluster, "loradeployment", NAME, holds, namespace=self.namespace, seconds=seconds)["status"]
        )

    def paused(self) -> Json:
        """The canary waits at its half."""
        return self.until(at("Paused", index=1), seconds=90)

    def ask(self, verb: str) -> None:
        ask(self.cluster, self.namespace, NAME, verb)

    def promoted(self, answer: str, *, before: str) -> None:
        self.until(serves(before), seconds=90)
        self.until(lambda _: self.load.only(answer), seconds=20)
        self.answer = answer

    def weights(self) -> dict[str, int]:
        """By revision, as the route says."""
        route = read(self.cluster, "httproute", NAME, namespace=self.namespace)
        refs = [] if route is None else route["spec"]["rules"][0]["backendRefs"]
        return {ref["name"].rsplit("-", 1)[1]: ref["weight"] for ref in refs}


@pytest.fixture(scope="module")
def served(cluster: Cluster, shop: str) -> Iterator[Served]:
    load = Traffic(url=cluster.gateway_url, host=host(NAME), model="sim", every=EVERY)
    one = Served(cluster, shop, load)
    one.declare("v1")
    one.until(serves(), seconds=90)
    with load:
        yield one
    cluster.kubectl("delete", "loradeployment", NAME, "-n", shop)


@pytest.fixture(autouse=True)
def nothing_lost(served: Served) -> Iterator[None]:
    """After every test."""
    yield
    assert dict(served.load.seen.failures) == {}


def test_pods_before_their_weight_and_no_bounce_at_the_end_t1_t2_t4_t6_t20_t25_t26(served: Served) -> None:
    with Truth(served.cluster, namespace=served.namespace, name=NAME) as truth:
        before = served.status["stable"]["revision"]
        answer = served.next()
        starting = served.until(at("Preparing"))
        assert (starting["candidate"]["weight"], starting["candidate"]["targetWeight"]) == (0, 0), "T26"
        assert served.weights() == {before: 100}
        half = served.paused()
        assert half["candidate"]["readyReplicas"] >= 1
        assert sum(served.weights().values()) == 100
        served.ask("promote")
        served.promoted(answer, before=before)
        served.until(lambda found: "previous" not in found["status"], seconds=60)
    assert truth.weight_without_a_pod() == []
    assert truth.untrue() == [], "T25"
    assert truth.compared > 50


def test_a_re_apply_an_edit_of_replicas_and_a_deleted_route_move_nothing_t12_t21_t22(served: Served) -> None:
    before = served.status["stable"]["revision"]
    answer = served.next()
    half = served.paused()
    weights = served.weights()
    served.declare(answer)
    served.declare(answer, replicas=3)
    served.until(lambda found: found["status"]["stable"]["readyReplicas"] == 3, seconds=60)
    assert (served.weights(), served.status["phase"]) == (weights, "Paused")
    served.cluster.kubectl("annotate", "httproute", NAME, "-n", served.namespace, "example.com/by-hand=1")
    route = read(served.cluster, "httproute", NAME, namespace=served.namespace)
    assert route is not None
    for rule in route["spec"]["rules"]:
        rule["backendRefs"][0]["weight"], rule["backendRefs"][1]["weight"] = 90, 10
    patch = json.dumps({"spec": {"rules": route["spec"]["rules"]}})
    served.cluster.kubectl("patch", "httproute", NAME, "-n", served.namespace, "--type=merge", "-p", patch)
    deadline = time.monotonic() + 20
    while served.weights() != weights:
        assert time.monotonic() < deadline, f"a weight edited by hand stays: {served.weights()}"
        time.sleep(0.2)
    assert half["candidate"]["revision"] == served.status["candidate"]["revision"]
    served.declare(answer)
    served.ask("promote")
    served.promoted(answer, before=before)


def test_abort_wins_over_promote_and_leaves_nothing_behind_t3_t7_t14(served: Served) -> None:
    before = served.status["stable"]["revision"]
    served.next()
    candidate = served.paused()["candidate"]["revision"]
    value = f"{candidate}/both"
    served.cluster.kubectl(
        "annotate", "loradeployment", NAME, "-n", served.namespace,
        f"loraops.dev/promote={value}", f"loraops.dev/abort={value}", "--overwrite",
    )  # fmt: skip
    ended = served.until(at("Aborted"), seconds=90)
    assert (ended["stable"]["revision"], ended["abort"]["reason"]) == (before, "AbortRequested")
    assert served.weights() == {before: 100}
    served.until(lambda _: served.load.only(served.answer), seconds=20)


def test_a_failed_state_accepts_the_next_revision_t24(served: Served) -> None:
    before = served.status["stable"]["revision"]
    assert served.status["phase"] == "Aborted"
    answer = served.next(steps=[{"setWeight": 50}])
    served.promoted(answer, before=before)


def test_revision_3_during_2_during_1_ends_with_1_and_3_t10(served: Served) -> None:
    before = served.status["stable"]["revision"]
    served.next()
    second = served.paused()["candidate"]["revision"]
    third = served.next(steps=[{"setWeight": 50}])
    served.promoted(third, before=before)
    names = served.cluster.kubectl(
        "get", "deployments", "-n", served.namespace, "-l", f"loraops.dev/deployment={NAME}", "-o", "name"
    )
    assert f"{NAME}-{second}" not in names
    assert served.answer == third


def test_an_approval_that_nobody_gives_expires_and_the_clocks_stand_still_while_paused_t13_t23(served: Served) -> None:
    before = served.status["stable"]["revision"]
    steps: list[Json] = [{"setWeight": 50}, {"pause": {"timeoutSeconds": 8, "onTimeout": "Abort"}}]
    answer = served.next(steps=steps)
    served.paused()
    served.declare(answer, steps=steps, paused=True)
    served.until(lambda found: found["status"].get("pause", {}).get("reason") == "SpecPaused")
    time.sleep(10)
    assert served.status["phase"] == "Paused", "the approval's time does not run"
    served.declare(answer, steps=steps)
    ended = served.until(at("Aborted"), seconds=60)
    assert (ended["abort"]["reason"], ended["stable"]["revision"]) == ("ApprovalTimedOut", before)


def test_an_object_of_somebody_else_is_never_adopted_t18(served: Served) -> None:
    name = "taken"
    spec = {"selector": {"app": "theirs"}, "ports": [{"name": "http", "port": 80}]}
    metadata = {"name": name, "namespace": served.namespace}
    served.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    strategy = {"type": "Replace"}
    served.cluster.apply(deployment(served.namespace, name, answer="v1", strategy=strategy, traffic={"service": {}}))
    blocked = lambda found: any(c["reason"] == "NameTaken" for c in found.get("status", {}).get("conditions", []))  # noqa: E731
    wait_for(served.cluster, "loradeployment", name, blocked, namespace=served.namespace, seconds=60)
    service = read(served.cluster, "service", name, namespace=served.namespace)
    assert service is not None
    assert service["spec"]["selector"] == {"app": "theirs"}
    served.cluster.kubectl("delete", "loradeployment,service", name, "-n", served.namespace, "--wait=false")


def test_no_request_was_lost_in_all_of_it(served: Served) -> None:
    no_request_was_lost(served.load)

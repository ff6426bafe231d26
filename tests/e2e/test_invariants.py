"""Invariants of rollouts (docs/invariants.md) on the real cluster under an open-loop load: no request is lost and no stream broken from
the first test of this file to the last.

Most tests drive the same canary, one after the other, as an operator's life is: promoted, aborted, superseded, edited. Those that
take something away by force have a deployment of their own.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.audit import AuditTail, is_write_of_operator, pod_of, told
from tests.e2e.conftest import CI_FACTOR, read, wait_for
from tests.e2e.operator_process import SYSTEM, lease_holder, process_of
from tests.e2e.served import Served, serving
from tests.e2e.simulated import EVERY, GATEWAY, at, deployment, host, no_request_was_lost
from tests.e2e.test_operator import living_leader, scale
from tests.e2e.traffic import Traffic
from tests.e2e.truth import SKEW, Counts

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
REPLICAS = 2
WITHIN = 2.0  # seconds by which status may be late
OVER_TIME = [{"setWeight": 25}, {"pause": {"seconds": 8}}, {"setWeight": 50}, {"pause": {"seconds": 8}}]


@pytest.fixture(scope="module")
def canary(cluster: Cluster, shop: str) -> Iterator[Served]:
    with serving(Served(cluster, namespace=shop, name="invariant", replicas=REPLICAS)) as one:
        yield one


@pytest.fixture
def served(canary: Served) -> Iterator[Served]:
    """At rest, whatever the test before left; nothing lost after the test."""
    if canary.status["phase"] not in ("Stable", "Aborted"):
        canary.declare(canary.answer)
    canary.until(_rests, seconds=90)
    yield canary
    assert canary.load.seen.lost == ""


def _rests(found: Json) -> bool:
    return found["status"]["phase"] in ("Stable", "Aborted")


def without_a_pod(weights: Counts, ready: Counts) -> bool:
    return any(not ready.get(revision) for revision in weights)


def short_of(pods: int) -> Callable[[Counts, Counts], bool]:
    """Fewer pods than declared are ready where requests go."""
    return lambda weights, ready: sum(ready.get(revision, 0) for revision in weights) < pods


def test_pods_before_their_weight_and_a_status_that_says_what_is_so_t1_t2_t4_t20_t25_t26(served: Served) -> None:
    steps = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {"seconds": 2}}]
    before = served.stable
    with served.watched() as truth:
        answer = served.next(steps=steps)
        starting = served.until(at("Preparing"))
        assert (starting["candidate"]["weight"], starting["candidate"]["targetWeight"]) == (0, 0), "T26"
        assert served.paused()["candidate"]["weight"] == 25
        served.ask("promote")
        candidate = served.promoted(answer, before=before)["stable"]["revision"]
    assert truth.longest(without_a_pod) < SKEW, "T1"
    assert truth.longest(short_of(REPLICAS)) < SKEW, "T2"
    assert truth.weights_of(candidate) == [0, 25, 50, 100], "T4: no bounce"
    assert {sum(weights.values()) for _, weights in truth.weights.points if weights} == {100}, "T20"
    ages = truth.age()
    assert max(ages.values()) <= WITHIN * CI_FACTOR, f"T25: {ages}"
    assert len(truth.said.points) > 6, "it was compared with something"


def test_abort_beats_promote_gives_all_back_and_the_next_revision_is_accepted_t7_t12_t14_t24(served: Served) -> None:
    before = served.stable
    served.next()
    candidate = served.paused()["candidate"]["revision"]
    with served.watched() as truth:
        served.ask_all("promote", "abort")
        served.aborted(reason="AbortRequested")
        served.until(lambda _: served.pods(candidate) == [])
    assert truth.weights_of(candidate) == [50, 0], "T14"
    assert truth.longest(short_of(REPLICAS)) < SKEW, "T7: capacity first"
    served.scale(3)
    served.until(lambda found: found["status"]["stable"]["readyReplicas"] == 3)
    assert (served.stable, served.pods(candidate), served.weights) == (before, [], {before: 100}), "T12"
    answer = served.next(steps=[{"setWeight": 50}])
    history = served.promoted(answer, before=before)["history"]
    assert [entry["result"] for entry in history[:2]] == ["Succeeded", "RolledBack"], "T24"


def test_revision_3_during_2_during_1_ends_with_1_and_3_t10(served: Served) -> None:
    before = served.stable
    served.next()
    second = served.paused()["candidate"]["revision"]
    with served.watched() as truth:
        answer = served.next(steps=[{"setWeight": 50}])
        third = served.promoted(answer, before=before)["stable"]["revision"]
    assert all(len(weights) <= 2 for _, weights in truth.weights.points)
    assert truth.weights_of(second) == [50, 0]
    assert truth.longest(lambda weights, ready: bool(ready.get(second) and ready.get(third))) < SKEW
    left = read(served.cluster, "deployment", f"{served.name}-{second}", namespace=served.namespace)
    assert (left or {"spec": {"replicas": 0}})["spec"]["replicas"] == 0
    served.soon(lambda: served.pods(second) == [], what="the second revision still has pods")


def test_a_re_apply_and_edits_of_replicas_and_labels_move_no_weight_t11_t12_t21(served: Served) -> None:
    before = served.stable
    answer = served.next()
    candidate = served.paused()["candidate"]["revision"]
    with served.watched() as truth, AuditTail(served.cluster.audit_log) as log:
        served.declare(answer)
        time.sleep(2)
        assert [told(write) for write in log.writes() if served.name in told(write)] == [], "T21"
        served.patch("loradeployment", {"metadata": {"labels": {"team": "risk"}}})
        served.scale(4)
        served.until(lambda found: found["status"]["stable"]["readyReplicas"] == 4)
        served.until(lambda found: found["status"]["candidate"]["readyReplicas"] == 2)
        assert served.status["phase"] == "Paused"
    assert truth.weights_of(candidate) == [50], "T11, T12"
    assert truth.longest(lambda weights, ready: ready.get(before, 0) < REPLICAS) < SKEW, "T12: stable never shrinks"
    served.scale(REPLICAS)
    served.ask("promote")
    served.promoted(answer, before=before)


def test_weights_edited_by_hand_are_put_back_t21(served: Served) -> None:
    served.next()
    served.paused()
    weights, route = served.weights, served.route
    for rule in route["spec"]["rules"]:
        for ref in rule["backendRefs"]:
            ref["weight"] = ref.get("weight", 1) + 40
    served.patch("httproute", {"spec": {"rules": route["spec"]["rules"]}})
    served.soon(lambda: served.weights == weights, what="a weight edited by hand stays")


def test_an_approval_that_nobody_gives_expires_and_its_clock_stands_still_while_paused_t13_t23(served: Served) -> None:
    seconds, held = 7, 9
    steps: list[Json] = [{"setWeight": 50}, {"pause": {"timeoutSeconds": seconds, "onTimeout": "Abort"}}]
    answer = served.next(steps=steps)
    before = datetime.fromisoformat(served.paused()["pause"]["until"])
    served.declare(answer, steps=steps, paused=True)
    served.paused("SpecPaused")
    time.sleep(held)
    assert served.status["phase"] == "Paused", "the approval's time does not run"
    served.declare(answer, steps=steps)
    after = datetime.fromisoformat(served.paused()["pause"]["until"])
    assert after - before >= timedelta(seconds=held), "T13: it goes on where it stood"
    served.aborted(reason="ApprovalTimedOut")


def test_an_analysis_without_a_source_holds_and_then_pauses_t15_t27(served: Served) -> None:
    analysis: Json = {
        "intervalSeconds": 1,
        "source": {"prometheus": {"address": f"http://nobody.{served.namespace}.svc:9090"}},
        "onInsufficientData": "Pause",
        "insufficientDataTimeoutSeconds": 6,
        "metrics": [{"name": "error-rate", "builtin": "errorRate"}],
    }
    served.next(steps=[{"setWeight": 25}, {"analyse": {"seconds": 2}}, {"setWeight": 50}], analysis=analysis)
    status = served.paused("InsufficientData")
    assert status["analysis"]["verdict"] == "InsufficientData"
    assert status["candidate"]["weight"] == 25
    assert sorted(served.weights.values()) == [25, 75]
    served.ask("abort")
    served.aborted(reason="AbortRequested")


def test_another_match_moves_the_header_rule_and_an_abort_takes_it_away_t3_t11(cluster: Cluster, shop: str) -> None:
    def strategy(value: str) -> Json:
        match = {"header": {"name": "x-variant", "value": value}}
        split = {"stable": 70, "candidate": 30}
        return {"type": "ABTest", "abTest": {"split": split, "successMetrics": ["conversion"], "match": match}}

    one = Served(cluster, namespace=shop, name="matched", replicas=1, strategy=strategy("b"))
    with serving(one) as served:
        before = served.stable
        answer = served.next()
        served.until(at("Testing", sub="Test"), seconds=90)
        candidate = served.status["candidate"]["revision"]
        assert headers(served.route) == {"b"}
        with served.watched() as truth:
            served.strategy = strategy("c")
            served.declare(answer)
            served.soon(lambda: headers(served.route) == {"c"}, what="the header rule stays where it was")
            served.until(at("Testing", sub="Test"))
        assert truth.weights_of(candidate) == [30], "T11"
        served.ask("abort")
        served.aborted(reason="AbortRequested")
        assert (headers(served.route), served.weights) == (set(), {before: 100}), "T3"
    served.delete("loradeployment", served.name, "--wait=false")


def headers(route: Json) -> set[str]:
    """Values of x-variant that have rules of their own."""
    matches = (match for rule in route["spec"]["rules"] for match in rule["matches"])
    found = (header for match in matches for header in match.get("headers", []))
    return {header["value"] for header in found if header["name"] == "x-variant"}


def test_what_is_deleted_in_the_middle_is_written_again_or_goes_in_order_t22(cluster: Cluster, shop: str) -> None:
    with serving(Served(cluster, namespace=shop, name="deleted", replicas=1)) as served:
        served.next()
        candidate = served.paused()["candidate"]["revision"]
        weights = served.weights
    names = [f"service/{served.name}-{revision}" for revision in (served.stable, candidate)]
    served.delete(f"httproute/{served.name}", *names)
    served.soon(lambda: _healed(served, names, weights), what="what was deleted stays away")
    time.sleep(2 * CI_FACTOR)  # until the proxy has read that it was gone
    served.soon(lambda: _answers_all(served), what="requests are lost long after all was written again", seconds=40)
    with loaded(served) as load:
        served.until(lambda _: {"v1", "v2"} <= set(load.seen.answers), seconds=20)
        served.ask("abort")
        served.aborted(reason="AbortRequested")
    assert load.seen.lost == ""
    served.next()
    served.paused()
    with loaded(served) as load:
        served.until(lambda _: {"v1", "v3"} <= set(load.seen.answers), seconds=20)
        served.delete("loradeployment", served.name, f"--timeout={60 * CI_FACTOR:.0f}s")
        assert read(cluster, "httproute", served.name, namespace=shop) is None
    others = {why: count for why, count in load.seen.failures.items() if "HTTP 404" not in why}
    assert others == {}, "without a route it is 404; nothing else may fail"
    assert load.seen.failures.total() > 0
    assert load.seen.streams > 0


@contextmanager
def loaded(served: Served) -> Iterator[Traffic]:
    """Another load, counted from its beginning."""
    served.load = Traffic(url=served.cluster.gateway_url, host=host(served.name), model="sim", every=EVERY)
    with served.load:
        yield served.load


def _answers_all(served: Served) -> bool:
    """None of some requests is lost: the proxy has read all of it again."""
    with loaded(served) as load:
        served.soon(lambda: load.seen.answers.total() + load.seen.failures.total() >= 30, what="too few requests")
    return not load.seen.lost


def _healed(served: Served, names: list[str], weights: dict[str, int]) -> bool:
    kinds = [("httproute", served.name), *(name.split("/") for name in names)]
    there = all(read(served.cluster, kind, name, namespace=served.namespace) for kind, name in kinds)
    return there and served.weights == weights


def test_objects_of_somebody_else_are_never_adopted_t18(cluster: Cluster, shop: str) -> None:
    spec = {"selector": {"app": "theirs"}, "ports": [{"name": "http", "port": 80}]}
    rules = [{"backendRefs": [{"name": "theirs", "port": 80}]}]
    theirs: dict[str, Json] = {
        "service": {"apiVersion": "v1", "kind": "Service", "spec": spec},
        "httproute": {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": {"rules": rules}},
    }
    traffic: dict[str, Json] = {
        "service": {"service": {}},
        "httproute": {"gateway": {**GATEWAY, "hostnames": [host("taken-httproute")]}},
    }
    found: dict[str, Json | None] = {}
    for kind, manifest in theirs.items():
        name = f"taken-{kind}"
        cluster.apply({**manifest, "metadata": {"name": name, "namespace": shop}})
        found[kind] = read(cluster, kind, name, namespace=shop)
        replace = {"type": "Replace"}
        cluster.apply(deployment(shop, name, answer="v1", strategy=replace, replicas=1, traffic=traffic[kind]))
    for kind in theirs:
        name = f"taken-{kind}"
        wait_for(cluster, "loradeployment", name, _says("NameTaken"), namespace=shop)
        now = read(cluster, kind, name, namespace=shop)
        assert now is not None
        assert (now["spec"], now["metadata"]) == (found[kind]["spec"], found[kind]["metadata"])  # type: ignore[index]
        cluster.kubectl("delete", "loradeployment", name, "-n", shop)
        assert read(cluster, kind, name, namespace=shop) is not None, "a deletion takes only what is ours"


def _says(reason: str) -> Callable[[Json], bool]:
    return lambda found: any(c["reason"] == reason for c in found.get("status", {}).get("conditions", []))


@pytest.fixture
def standby(cluster: Cluster, simulated: None) -> Iterator[None]:
    """Beside the leader, for one test."""
    scale(cluster, 2)
    yield
    scale(cluster, 1)


def test_a_leader_that_wakes_when_another_one_leads_writes_nothing_t9(
    cluster: Cluster, shop: str, standby: None
) -> None:
    with serving(Served(cluster, namespace=shop, name="two-operators", replicas=1)) as served:
        before = served.stable
        asleep = living_leader(cluster)
        pid, starts = process_of([asleep]), restarts(cluster, asleep)
        with served.watched() as truth, AuditTail(cluster.audit_log) as log:
            answer = served.next(steps=OVER_TIME)
            served.until(at("Stepping", sub="Bake", index=1), seconds=90)
            os.kill(pid, signal.SIGSTOP)
            try:
                served.soon(lambda: lease_holder(cluster) not in ("", asleep), what="nobody else leads", seconds=40)
                served.until(at("Stepping", sub="Bake", index=3), seconds=60)
                earlier = [line for line in log.lines() if pod_of(line) == asleep]
            finally:
                os.kill(pid, signal.SIGCONT)
            ended = lambda: restarts(cluster, asleep) > starts  # noqa: E731
            served.soon(ended, what="it goes on with a Lease that is not its own", seconds=30)
            history = served.promoted(answer, before=before)["history"]
            late = [told(line) for line in log.lines() if pod_of(line) == asleep and is_write_of_operator(line)]
        revision = served.stable
    assert earlier, "its requests carry its name"
    assert late == []
    assert truth.weights_of(revision) == [0, 25, 50, 100]
    assert [entry["result"] for entry in history] == ["Succeeded", "Succeeded"]
    served.delete("loradeployment", served.name, "--wait=false")


def restarts(cluster: Cluster, pod: str) -> int:
    """How often its container was started anew."""
    path = "jsonpath={.status.containerStatuses[0].restartCount}"
    return int(cluster.kubectl("get", "pod", pod, "-n", SYSTEM, "-o", path))


def test_no_request_was_lost_in_all_of_it(canary: Served) -> None:
    no_request_was_lost(canary.load)

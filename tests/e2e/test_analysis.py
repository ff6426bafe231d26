"""Canaries that are analysed, on the real cluster through the Gateway under an open-loop load: five kinds of bad candidate are rolled
back with reason and evidence, a healthy one is promoted, and the rollout itself loses no request.

Each has a LoRADeployment of its own and all of them run side by side, as they would in a shared cluster; a test waits for the end of one.
Before them one whose figures are bad and not its answers (T16).
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import CI_FACTOR, Wait, read, wait_for, wait_for_event
from tests.e2e.played_prometheus import BAD, PlayedPrometheus, well
from tests.e2e.served import Served, serving
from tests.e2e.simulated import at, deployment, host, serves
from tests.e2e.test_bad_input import adapter, has
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
INTERVAL = 5  # seconds between two scrapes
LATENCY = "0.15"  # seconds of an answer of v1; the lowest edge of vLLM's histogram is 0.3
STEPS = [{"setWeight": 25}, {"analyse": {"seconds": 15}}, {"setWeight": 50}, {"analyse": {"seconds": 10}}]
ANALYSIS: Json = {
    "intervalSeconds": INTERVAL,
    "minCandidateRequests": 50,
    "metrics": [
        {"name": "error-rate", "builtin": "errorRate"},
        {"name": "latency", "builtin": "latencyP95"},
        {"name": "speed", "builtin": "throughput"},
    ],
}


@dataclass(frozen=True)
class Candidate:
    """What is wrong with it. `every`: seconds between two requests."""

    arguments: tuple[str, ...] = ()
    spec: Json = field(default_factory=dict)
    every: float = 0.2


CANDIDATES = {
    "failing": Candidate(("--errors", "0.05"), every=0.05),
    "slow": Candidate(("--latency", "0.45"), every=0.05),
    "base": Candidate(spec={"adapterRef": {"name": "probed"}}),
    "late": Candidate(("--slow-start", "3600"), spec={"progressDeadlineSeconds": 12}),
    "mortal": Candidate(("--crash-after", "30"), every=0.1),
    "v2": Candidate(every=0.05),
}


@pytest.fixture(scope="module")
def namespace(shop: str) -> str:
    """Every test of this module works in the same one."""
    return shop


def named(answer: str) -> str:
    """The LoRADeployment whose candidate answers this."""
    return f"analysed-{answer}"


def wanted(namespace: str, answer: str, *, of: str, arguments: tuple[str, ...] = (), **spec: Any) -> Json:
    """The LoRADeployment of candidate `of`, with pods that answer `answer`."""
    manifest = deployment(
        namespace,
        named(of),
        answer=answer,
        strategy={"type": "Canary", "canary": {"steps": STEPS}},
        replicas=1,
        analysis=ANALYSIS,
        **{"progressDeadlineSeconds": 120, **spec},
    )
    manifest["spec"]["runtime"]["args"] = ["--answer", answer, "--latency", LATENCY, *arguments]
    return manifest


def test_figures_that_are_none_hold_the_weight_until_there_are_some_t16(cluster: Cluster, namespace: str) -> None:
    steps: list[Json] = [{"setWeight": 50}, {"analyse": {"seconds": 1}}, {"pause": {}}, {"analyse": {"seconds": 1}}]
    one = Served(cluster, namespace=namespace, name="unmeasured", replicas=1)
    with PlayedPrometheus(cluster) as prometheus, serving(one) as served, served.watched() as truth:
        before = served.stable
        prometheus.answer, _ = BAD["nothing"]
        answer = served.next(steps=steps, analysis=asking(prometheus.address))
        served.until(at("Stepping", sub="Analyse", index=1), seconds=90)
        for kind in BAD:
            status = unmeasured(served, prometheus, kind)
            assert (status["phase"], status["step"]["index"], status["candidate"]["weight"]) == ("Stepping", 1, 50)
        candidate = status["candidate"]["revision"]
        assert truth.weights_of(candidate) == [0, 50]
        prometheus.answer = well
        status = served.paused()
        assert status["analysis"]["verdict"] == "Pass"
        status = unmeasured(served, prometheus, "the user's query is NaN")
        assert status["phase"] == "Paused", "what was good once is good no more"
        served.ask("promote")
        served.until(at("Stepping", sub="Analyse", index=3))
        status = unmeasured(served, prometheus, "NaN")
        assert (status["phase"], status["stable"]["revision"]) == ("Stepping", before)
        assert truth.weights_of(candidate) == [0, 50]
        prometheus.answer = well
        served.promoted(answer, before=before)
    assert truth.weights_of(candidate) == [0, 50, 100]
    assert served.load.seen.answers["v2"] > 0
    served.delete("loradeployment", served.name, "--wait=false")


def asking(address: str) -> Json:
    """An analysis that looks every second, by the operator's own figure and by one of the user."""
    metrics = [{"name": "error-rate", "builtin": "errorRate"}, {"name": "sales", "query": 'sales{s="{{variant}}"}'}]
    return {
        "intervalSeconds": 1,
        "source": {"prometheus": {"address": address}},
        "minCandidateRequests": 50,
        "metrics": metrics,
    }


def unmeasured(served: Served, prometheus: PlayedPrometheus, kind: str) -> Json:
    """The status once the operator has said of several such answers what they are."""
    prometheus.answer, says = BAD[kind]
    looks = prometheus.looks
    started = time.monotonic()

    def told(found: Json) -> bool:
        analysis = found["status"].get("analysis", {})
        bad = analysis.get("verdict") == "InsufficientData" and says in analysis["message"]
        return bad and prometheus.looks >= looks + 3

    status = served.until(told, seconds=60)
    passed = next(c for c in status["conditions"] if c["type"] == "AnalysisPassed")
    assert (passed["status"], passed["reason"]) == ("Unknown", "InsufficientData")
    assert says in passed["message"]
    print(f"{kind}: after {time.monotonic() - started:.1f} s {passed['message']}")  # noqa: T201 (pytest shows it with -s)
    return status


@pytest.fixture(scope="module")
def probed(cluster: Cluster, namespace: str) -> None:
    """An adapter whose validation recorded an answer that the base model does not give."""
    manifest = adapter(namespace)
    manifest["metadata"]["name"] = "probed"
    cluster.apply(manifest)
    wait_for(cluster, "loraadapter", "probed", has("ValidationDisabled"), namespace=namespace, seconds=150)
    probes = {"status": {"validation": {"probes": [{"prompt": "T+2?", "answer": "tuned", "margin": 2.0}]}}}
    arguments = ("loraadapter", "probed", "-n", namespace, "--subresource=status", "--type=merge")
    cluster.kubectl("patch", *arguments, "-p", json.dumps(probes))


@dataclass(frozen=True)
class Rollouts:
    """All of them, begun at once: the revision of v1 and the load, by what the candidate answers."""

    stable: Mapping[str, str]
    traffic: Mapping[str, Traffic]


@pytest.fixture(scope="module")
def rollouts(cluster: Cluster, namespace: str, probed: None) -> Iterator[Rollouts]:
    """v1 serves everywhere, then each candidate is declared."""
    with ExitStack() as running:
        for answer in CANDIDATES:
            cluster.apply(wanted(namespace, "v1", of=answer))
        stable: dict[str, str] = {}
        traffic: dict[str, Traffic] = {}
        for answer, candidate in CANDIDATES.items():
            found = wait_for(cluster, "loradeployment", named(answer), serves(), namespace=namespace, seconds=90)
            stable[answer] = found["status"]["stable"]["revision"]
            load = Traffic(url=cluster.gateway_url, host=host(named(answer)), model="sim", every=candidate.every)
            traffic[answer] = running.enter_context(load)
        for answer, candidate in CANDIDATES.items():
            cluster.apply(wanted(namespace, answer, of=answer, arguments=candidate.arguments, **candidate.spec))
        yield Rollouts(stable=stable, traffic=traffic)
    for answer in CANDIDATES:
        cluster.kubectl("delete", "loradeployment", named(answer), "-n", namespace, "--wait=false")


def given_up(found: Json) -> bool:
    """The declared revision was rolled back."""
    status = found.get("status", {})
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    return bool(current) and status.get("phase") == "Aborted"


def rolled_back(cluster: Cluster, wait: Wait, rollouts: Rollouts, answer: str, *, reason: str) -> Json:
    """The status once v1 has everything again."""
    found = wait("loradeployment", named(answer), given_up, seconds=120)
    status = dict(found["status"])
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert (status["stable"]["revision"], status["stable"]["weight"]) == (rollouts.stable[answer], 100)
    assert (status["abort"]["reason"], conditions["RolledBack"]["reason"]) == (reason, reason)
    assert status["history"][0]["reason"] == reason
    event = wait_for_event(cluster, about=named(answer), reason=reason, namespace=found["metadata"]["namespace"])
    assert event["type"] == "Warning"
    return status


def until_v1_alone(wait: Wait, rollouts: Rollouts, answer: str) -> None:
    wait("loradeployment", named(answer), lambda _: rollouts.traffic[answer].only("v1"), seconds=20)


def test_a_candidate_with_5_percent_errors_is_rolled_back(cluster: Cluster, wait: Wait, rollouts: Rollouts) -> None:
    status = rolled_back(cluster, wait, rollouts, "failing", reason="AnalysisFailed")
    evidence = status["abort"]["evidence"]
    assert (evidence["name"], evidence["verdict"]) == ("error-rate", "Degraded")
    assert evidence["candidateEvents"] / evidence["candidateRequests"] > 0.02
    assert evidence["stableEvents"] == 0
    assert evidence["e"] >= evidence["threshold"]
    until_v1_alone(wait, rollouts, "failing")
    others = [what for what in rollouts.traffic["failing"].seen.failures if "HTTP 500" not in what]
    assert others == [], "the candidate answers 500 by itself; nothing else fails"


def test_a_candidate_three_times_as_slow_is_rolled_back_within_a_scrape_and_two_seconds(
    cluster: Cluster, wait: Wait, rollouts: Rollouts
) -> None:
    status = rolled_back(cluster, wait, rollouts, "slow", reason="AnalysisFailed")
    evidence = status["abort"]["evidence"]
    assert (evidence["name"], evidence["edgeSeconds"]) == ("latency", 0.3)
    assert evidence["candidate"] > evidence["stable"]
    until_v1_alone(wait, rollouts, "slow")
    seen = rollouts.traffic["slow"].seen
    first, last = seen.spans["slow"]
    assert (last - first).total_seconds() <= (INTERVAL + 2) * CI_FACTOR
    assert seen.lost == ""


def test_a_candidate_that_answers_as_the_base_model_gets_no_request(
    cluster: Cluster, wait: Wait, rollouts: Rollouts
) -> None:
    status = rolled_back(cluster, wait, rollouts, "base", reason="WrongModelAnswers")
    assert "found 'base', the validated model answers 'tuned'" in status["abort"]["message"]
    seen = rollouts.traffic["base"].seen
    assert (set(seen.answers), seen.lost) == ({"v1"}, "")


def test_a_candidate_that_never_gets_ready_gets_no_request(cluster: Cluster, wait: Wait, rollouts: Rollouts) -> None:
    status = rolled_back(cluster, wait, rollouts, "late", reason="ProgressDeadlineExceeded")
    assert "not ready within 12 s" in status["abort"]["message"]
    seen = rollouts.traffic["late"].seen
    assert (set(seen.answers), seen.lost) == ({"v1"}, "")


def test_a_candidate_that_crashes_after_30_seconds_is_left_at_once(
    cluster: Cluster, wait: Wait, rollouts: Rollouts
) -> None:
    status = rolled_back(cluster, wait, rollouts, "mortal", reason="CapacityLost")
    assert "none of its pods is ready" in status["abort"]["message"]
    seen = rollouts.traffic["mortal"].seen
    assert seen.answers["mortal"] > 0
    until_v1_alone(wait, rollouts, "mortal")
    failed, answered = seen.failures.total(), seen.answers.total()
    wait("loradeployment", named("mortal"), lambda _: seen.answers.total() > answered + 50, seconds=30)
    assert seen.failures.total() == failed, f"once it was left nothing fails any more: {seen.lost}"


def test_a_healthy_candidate_is_promoted_without_losing_a_request(
    cluster: Cluster, namespace: str, wait: Wait, rollouts: Rollouts
) -> None:
    found = wait("loradeployment", named("v2"), serves(rollouts.stable["v2"]), seconds=150)
    analysis = found["status"]["analysis"]
    figures = {metric["builtin"]: metric for metric in analysis["metrics"]}
    assert analysis["verdict"] == "Pass"
    assert figures["errorRate"]["stable"] == figures["errorRate"]["candidate"] == 0
    assert 0 < figures["latencyP95"]["stable"] < 1
    assert figures["throughput"]["stable"] > 1
    traffic = rollouts.traffic["v2"]
    wait("loradeployment", named("v2"), lambda _: traffic.only("v2"), seconds=20)
    assert traffic.seen.lost == ""
    kept = read(cluster, "configmap", f"{named('v2')}-analysis", namespace=namespace)
    assert kept is not None
    assert json.loads(kept["data"]["comparison.json"])["whole"]["candidate"]["requests"] >= 50

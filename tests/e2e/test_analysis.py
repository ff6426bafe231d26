"""Canaries that are analysed, on the real cluster through the Gateway under an open-loop load: five kinds of bad candidate are rolled
back with reason and evidence, a healthy one is promoted, and the rollout itself loses no request.

One LoRADeployment for all of it: what is rolled back leaves v1 as it was, so the next candidate finds the same world.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import CI_FACTOR, Wait, read, wait_for
from tests.e2e.simulated import deployment, host, serves
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
NAME = "analysed"
INTERVAL = 5  # seconds between two scrapes
EVERY = 0.05  # seconds between two requests
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


@pytest.fixture(scope="module")
def namespace(shop: str) -> str:
    """Every test of this module works in the same one."""
    return shop


def wanted(namespace: str, *arguments: str, answer: str, **more: Any) -> Json:
    """The LoRADeployment with a runtime that was given these arguments."""
    manifest = deployment(
        namespace,
        NAME,
        answer=answer,
        strategy={"type": "Canary", "canary": {"steps": STEPS}},
        replicas=1,
        analysis=ANALYSIS,
        **{"progressDeadlineSeconds": 120, **more},
    )
    runtime = manifest["spec"]["runtime"]
    runtime["args"] = ["--answer", answer, "--latency", LATENCY, *arguments]
    return manifest


@pytest.fixture(scope="module")
def stable(cluster: Cluster, namespace: str) -> Iterator[str]:
    """v1 serves; the revision."""
    cluster.apply(wanted(namespace, answer="v1"))
    found = wait_for(cluster, "loradeployment", NAME, serves(), namespace=namespace, seconds=90)
    yield found["status"]["stable"]["revision"]
    cluster.kubectl("delete", "loradeployment", NAME, "-n", namespace)


@pytest.fixture
def traffic(cluster: Cluster, stable: str) -> Iterator[Traffic]:
    with Traffic(url=cluster.gateway_url, host=host(NAME), model="sim", every=EVERY) as running:
        yield running


def given_up(found: Json) -> bool:
    """The declared revision was rolled back."""
    status = found.get("status", {})
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    return bool(current) and status.get("phase") == "Aborted"


def rolled_back(cluster: Cluster, wait: Wait, stable: str, *, reason: str, seconds: float = 90) -> Json:
    """The status once v1 has everything again."""
    found = wait("loradeployment", NAME, given_up, seconds=seconds)
    status = dict(found["status"])
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert (status["stable"]["revision"], status["stable"]["weight"]) == (stable, 100)
    assert (status["abort"]["reason"], conditions["RolledBack"]["reason"]) == (reason, reason)
    assert status["history"][0]["reason"] == reason
    events = json.loads(cluster.kubectl("get", "events", "-n", found["metadata"]["namespace"], "-o", "json"))["items"]
    assert any(event["reason"] == reason and event["type"] == "Warning" for event in events)
    return status


def until_v1_alone(wait: Wait, traffic: Traffic) -> None:
    wait("loradeployment", NAME, lambda _: traffic.only("v1"), seconds=20)


def test_a_candidate_with_5_percent_errors_is_rolled_back(
    cluster: Cluster, namespace: str, wait: Wait, stable: str, traffic: Traffic
) -> None:
    cluster.apply(wanted(namespace, "--errors", "0.05", answer="failing"))
    status = rolled_back(cluster, wait, stable, reason="AnalysisFailed")
    evidence = status["abort"]["evidence"]
    assert (evidence["name"], evidence["verdict"]) == ("error-rate", "Degraded")
    assert evidence["candidateEvents"] / evidence["candidateRequests"] > 0.02
    assert evidence["stableEvents"] == 0
    assert evidence["e"] >= evidence["threshold"]
    until_v1_alone(wait, traffic)
    others = [what for what in traffic.seen.failures if "HTTP 500" not in what]
    assert others == [], "the candidate answers 500 by itself; nothing else fails"


def test_a_candidate_three_times_as_slow_is_rolled_back_within_a_scrape_and_two_seconds(
    cluster: Cluster, namespace: str, wait: Wait, stable: str, traffic: Traffic
) -> None:
    cluster.apply(wanted(namespace, "--latency", "0.45", answer="slow"))
    wait("loradeployment", NAME, lambda _: traffic.seen.answers["slow"] > 0, seconds=60)
    begun = time.monotonic()
    wait("loradeployment", NAME, lambda found: found["status"]["candidate"]["weight"] == 0, seconds=30)
    assert time.monotonic() - begun <= (INTERVAL + 2) * CI_FACTOR
    status = rolled_back(cluster, wait, stable, reason="AnalysisFailed")
    evidence = status["abort"]["evidence"]
    assert (evidence["name"], evidence["edgeSeconds"]) == ("latency", 0.3)
    assert evidence["candidate"] > evidence["stable"]
    until_v1_alone(wait, traffic)
    assert dict(traffic.seen.failures) == {}


def test_a_candidate_that_answers_as_the_base_model_gets_no_request(
    cluster: Cluster, namespace: str, wait: Wait, stable: str, traffic: Traffic
) -> None:
    probes = {"status": {"validation": {"probes": [{"prompt": "T+2?", "answer": "tuned", "margin": 2.0}]}}}
    cluster.kubectl(
        "patch", "loraadapter", "a", "-n", namespace, "--subresource=status", "--type=merge", "-p", json.dumps(probes)
    )
    try:
        cluster.apply(wanted(namespace, answer="base"))
        status = rolled_back(cluster, wait, stable, reason="WrongModelAnswers")
    finally:
        none = json.dumps({"status": {"validation": None}})
        cluster.kubectl(
            "patch", "loraadapter", "a", "-n", namespace, "--subresource=status", "--type=merge", "-p", none
        )
    assert "found 'base', the validated model answers 'tuned'" in status["abort"]["message"]
    assert "base" not in traffic.seen.answers
    assert dict(traffic.seen.failures) == {}


def test_a_candidate_that_never_gets_ready_gets_no_request(
    cluster: Cluster, namespace: str, wait: Wait, stable: str, traffic: Traffic
) -> None:
    cluster.apply(wanted(namespace, "--slow-start", "3600", answer="late", progressDeadlineSeconds=12))
    status = rolled_back(cluster, wait, stable, reason="ProgressDeadlineExceeded")
    assert "not ready within 12 s" in status["abort"]["message"]
    assert "late" not in traffic.seen.answers
    assert dict(traffic.seen.failures) == {}


def test_a_candidate_that_crashes_after_30_seconds_is_left_at_once(
    cluster: Cluster, namespace: str, wait: Wait, stable: str, traffic: Traffic
) -> None:
    cluster.apply(wanted(namespace, "--crash-after", "30", answer="mortal"))
    wait("loradeployment", NAME, lambda _: traffic.seen.answers["mortal"] > 0, seconds=60)
    status = rolled_back(cluster, wait, stable, reason="CapacityLost")
    assert "none of its pods is ready" in status["abort"]["message"]
    until_v1_alone(wait, traffic)
    failed = traffic.seen.failures.total()
    wait("loradeployment", NAME, lambda _: traffic.seen.answers.total() > 200, seconds=30)
    assert traffic.seen.failures.total() == failed, "once it was left nothing fails any more"


def test_a_healthy_candidate_is_promoted_without_losing_a_request(
    cluster: Cluster, namespace: str, wait: Wait, stable: str, traffic: Traffic
) -> None:
    cluster.apply(wanted(namespace, answer="v2"))
    found = wait("loradeployment", NAME, serves(stable), seconds=150)
    analysis = found["status"]["analysis"]
    figures = {metric["builtin"]: metric for metric in analysis["metrics"]}
    assert analysis["verdict"] == "Pass"
    assert figures["errorRate"]["stable"] == figures["errorRate"]["candidate"] == 0
    assert 0 < figures["latencyP95"]["stable"] < 1
    assert figures["throughput"]["stable"] > 1
    wait("loradeployment", NAME, lambda _: traffic.only("v2"), seconds=20)
    assert dict(traffic.seen.failures) == {}
    kept = read(cluster, "configmap", f"{NAME}-analysis", namespace=namespace)
    assert kept is not None
    assert json.loads(kept["data"]["comparison.json"])["whole"]["candidate"]["requests"] >= 50

"""The operator as a Pod: two replicas, one leader; whoever is killed, the work goes on and nothing is done twice."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cluster import Cluster, NotReady
from tests.e2e.conftest import CI_FACTOR, Wait, read, soon
from tests.e2e.test_bad_input import adapter, has, populate

pytestmark = pytest.mark.e2e

SYSTEM, NAME = "lora-system", "lora-operator"
HANDED_ON = 6  # seconds: a standby looks every 2 s; a Lease runs out after 15 s


@pytest.fixture
def claim(cluster: Cluster, namespace: str, installed: None) -> Path:
    """The claim `models` with a tiny base and a tiny adapter."""
    return populate(cluster.create_claim(namespace=namespace, name="models"))


@pytest.fixture
def two_replicas(cluster: Cluster, installed: None) -> Iterator[None]:
    """A standby beside the leader, for one test."""
    scale(cluster, 2)
    yield
    scale(cluster, 1)


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl("scale", "deployment", NAME, "-n", SYSTEM, f"--replicas={replicas}")
    cluster.kubectl("rollout", "status", "deployment", NAME, "-n", SYSTEM, "--timeout=120s")


def leader(cluster: Cluster) -> str:
    """The pod that holds the Lease."""
    lease = read(cluster, "lease", NAME, namespace=SYSTEM)
    assert lease is not None
    return str(lease["spec"].get("holderIdentity") or "")


def test_a_standby_is_ready_and_takes_over_when_the_leader_is_killed_in_the_middle_of_a_merge(
    cluster: Cluster, namespace: str, claim: Path, wait: Wait, two_replicas: None
) -> None:
    first = living_leader(cluster)
    cluster.apply(adapter(namespace))
    wait("loraadapter", "a", lambda found: bool(found.get("status", {}).get("jobs")))
    cluster.kubectl("delete", "pod", first, "-n", SYSTEM, "--force", "--grace-period=0")
    found = wait("loraadapter", "a", has("ValidationDisabled"), seconds=120)
    assert found["status"]["jobs"]["merge"]["attempt"] == 1
    assert living_leader(cluster) != first
    jobs = json.loads(cluster.kubectl("get", "jobs", "-n", namespace, "-o", "json"))["items"]
    assert len(jobs) == 1


def test_a_leader_that_is_asked_to_stop_hands_its_lease_on(cluster: Cluster, two_replicas: None) -> None:
    first = living_leader(cluster)
    cluster.kubectl("delete", "pod", first, "-n", SYSTEM, "--wait=false")
    deadline = time.monotonic() + HANDED_ON * CI_FACTOR
    while leader(cluster) in ("", first):
        assert time.monotonic() < deadline, "who comes next waits until the Lease has run out"
        time.sleep(0.2)


def living_leader(cluster: Cluster) -> str:
    """The leader once it is a pod that lives: the Lease of one that was stopped stands for a while."""
    deadline = time.monotonic() + 60 * CI_FACTOR
    while True:
        name = leader(cluster)
        pod = read(cluster, "pod", name, namespace=SYSTEM) if name else None
        if pod is not None and "deletionTimestamp" not in pod["metadata"]:
            return name
        assert time.monotonic() < deadline, f"the Lease is held by {name or 'nobody'}, which is no pod"
        time.sleep(0.5)


def test_the_probes_and_metrics_of_a_pod_answer(cluster: Cluster, installed: None) -> None:
    pod = living_leader(cluster)

    def answer(path: str) -> str:
        return cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{pod}:8080/proxy/{path}").strip()

    def ready() -> bool:
        try:
            return bool(answer("readyz"))
        except NotReady:  # who has just begun to lead reads everything first
            return False

    soon(ready, what="a leader that does not get ready")
    assert answer("healthz")
    assert answer("metrics")

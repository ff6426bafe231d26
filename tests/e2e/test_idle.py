"""A thousand LoRADeployments that serve and want nothing cost the API server less than one write a minute together, Lease renewals aside.

All of them are Stable and Ready: adapter, revision, Deployment, pod, EndpointSlice, HTTPRoute and its confirmation are there for each.
The pods of all but one are played (tests/e2e/played_node.py), because one node has no room for a thousand.

    make them ─► quiet ─► idle for minutes ─► kill -9, a new process reads everything ─► idle for minutes ─► delete them
                          └── writes counted ──────────────┴── writes counted ──┘
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from devcluster.cluster import Cluster
from tests.e2e.api import LORA, connect
from tests.e2e.audit import AuditTail, is_of_operator, is_read, told
from tests.e2e.conftest import CI_FACTOR, RESTRICTED, wait_for
from tests.e2e.operator_process import PODS, kill, operator_pods, process_of
from tests.e2e.played_node import PlayedNode
from tests.e2e.simulated import deployment, serves
from tests.e2e.test_bad_input import adapter, has, populate

pytestmark = [pytest.mark.e2e, pytest.mark.full]

Json = dict[str, Any]
RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks" / "idle.json"
COUNT = 1_000
MINUTES = 5
MINUTES_AFTER_RESTART = 2
QUIET_SECONDS = 20  # without a write: what was begun is over
AT_ONCE = 8  # requests of the test
METRICS = {
    "cpu": "process_cpu_seconds_total",
    "memory": "process_resident_memory_bytes",
    "reconciles": 'lora_operator_reconcile_seconds_count{resource="loradeployments"}',
}


@dataclass(frozen=True)
class Use:
    """What the operator's process says of itself."""

    cpu: float  # seconds since its start
    memory: float  # bytes
    reconciles: float  # of LoRADeployments since its start


@dataclass(frozen=True)
class Span:
    """Some minutes of the operator."""

    minutes: float
    writes: list[str]
    reads: Counter[str]
    leases: int

    @property
    def figures(self) -> Json:
        reads = {what: round(count / self.minutes, 2) for what, count in sorted(self.reads.items())}
        return {
            "minutes": round(self.minutes, 1),
            "writes": self.writes,
            "leaseRequestsPerMinute": round(self.leases / self.minutes, 1),
            "readsPerMinute": reads,
        }


@pytest.fixture
def node(cluster: Cluster, simulated: None) -> Iterator[PlayedNode]:
    """Made before the claim, whose volume names the nodes it may be used on."""
    with PlayedNode(cluster, name="played", room=COUNT + 100) as played:
        yield played


@pytest.fixture
def fleet(cluster: Cluster, node: PlayedNode) -> Iterator[str]:
    """A namespace with an adapter that is Ready and one LoRADeployment whose pod really runs; emptied afterwards."""
    name = f"t-{uuid4().hex[:8]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    populate(cluster.create_claim(namespace=name, name="models"))
    cluster.apply(adapter(name))
    wait_for(cluster, "loraadapter", "a", has("ValidationDisabled"), namespace=name, seconds=150)
    cluster.apply(idle(name, "real"))
    wait_for(cluster, "loradeployment", "real", serves(), namespace=name, seconds=90)
    with connect(cluster) as http:
        [pod] = items(http, f"/api/v1/namespaces/{name}/pods?labelSelector=loraops.dev/deployment=real")
    node.address = pod["status"]["podIP"]
    yield name
    with connect(cluster) as http:
        http.delete(f"{LORA}/namespaces/{name}/loradeployments", timeout=120)
        until(
            lambda: not items(http, f"{LORA}/namespaces/{name}/loradeployments"),
            of="end of their finalizers",
            seconds=300,
        )
        cluster.kubectl("delete", "namespace", name, "--wait=false")
        until(lambda: not items(http, node.pods), of="end of its pods", seconds=300)


def test_a_thousand_idle_deployments_write_nothing(cluster: Cluster, fleet: str, node: PlayedNode) -> None:
    began = time.monotonic()
    make(cluster, fleet, node)
    seconds: dict[str, float] = {"made": round(time.monotonic() - began)}
    with AuditTail(cluster.audit_log) as log:
        quiet(log)
        before = use(cluster)
        idle_span = watched(log, seconds=60 * MINUTES)
        after = use(cluster)
        kill(process_of(operator_pods(cluster)))
        killed = time.monotonic()
        until(lambda: running(cluster) and use(cluster).reconciles >= COUNT, of="a look at each", seconds=60)
        seconds["killed until each was looked at"] = round(time.monotonic() - killed, 1)
        at_start = use(cluster)
        restarted = watched(log, seconds=60 * MINUTES_AFTER_RESTART - (time.monotonic() - killed), since=killed)
    found = {
        "deployments": COUNT,
        "seconds": seconds,
        "idle": {
            **idle_span.figures,
            "cpuSecondsPerMinute": round((after.cpu - before.cpu) / idle_span.minutes, 2),
            "reconciles": after.reconciles - before.reconciles,
            "memoryMiB": round(after.memory / 2**20),
        },
        "restarted": {
            **restarted.figures,
            "cpuSecondsToLookAtEach": round(at_start.cpu, 2),
            "memoryMiB": round(use(cluster).memory / 2**20),
        },
    }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))  # noqa: T201 (figures, for who runs it with -s)
    assert stable(cluster, fleet) == COUNT
    assert len(idle_span.writes) < idle_span.minutes, idle_span.writes
    assert len(restarted.writes) < restarted.minutes, restarted.writes


def idle(namespace: str, name: str, **placement: Any) -> Json:
    manifest = deployment(namespace, name, answer="v1", strategy={"type": "Replace"}, replicas=1)
    manifest["spec"]["runtime"] |= placement
    return manifest


def make(cluster: Cluster, namespace: str, node: PlayedNode) -> None:
    """All but the real one, until each is Stable and Ready."""
    manifests = [idle(namespace, f"idle-{number}", **node.placement) for number in range(1, COUNT)]
    path = f"{LORA}/namespaces/{namespace}/loradeployments"
    with connect(cluster) as http, ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for reply in pool.map(lambda manifest: http.post(path, json=manifest, timeout=30), manifests):
            reply.raise_for_status()
    until(lambda: stable(cluster, namespace) == COUNT, of="Stable and Ready", seconds=450, every=3)


def stable(cluster: Cluster, namespace: str) -> int:
    """How many serve what they declare, and say so."""
    with connect(cluster) as http:
        found = items(http, f"{LORA}/namespaces/{namespace}/loradeployments")
    return sum(serves()(one) and is_ready(one) for one in found)


def is_ready(found: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"])


def items(http: httpx.Client, path: str) -> list[Json]:
    return list(http.get(path, timeout=60).raise_for_status().json()["items"])


def quiet(log: AuditTail) -> None:
    """The last write was a while ago."""
    until(lambda: not watched(log, seconds=QUIET_SECONDS).writes, of="an end of the writes", seconds=120)


def watched(log: AuditTail, *, seconds: float, since: float | None = None) -> Span:
    """What the operator asks for from now on, for so long; with `since` also what the log has not told yet."""
    began = time.monotonic() if since is None else since
    if since is None:
        list(log.lines())
    time.sleep(seconds)
    lines = [line for line in log.lines() if is_of_operator(line) and line["stage"] == "ResponseComplete"]
    leases: list[Json] = []
    others: list[Json] = []
    for line in lines:
        (leases if what(line) == "leases" else others).append(line)
    return Span(
        minutes=(time.monotonic() - began) / 60,
        writes=[told(line) for line in others if not is_read(line)],
        reads=Counter(f"{line['verb']} {what(line)}" for line in others if is_read(line)),
        leases=len(leases),
    )


def what(line: Json) -> str:
    """Which resource, or which page that is none."""
    return str((line.get("objectRef") or {}).get("resource") or line["requestURI"])


def running(cluster: Cluster) -> bool:
    """The operator answers its probes."""
    try:
        return httpx.get(f"{metrics_url(cluster)}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def use(cluster: Cluster) -> Use:
    page = httpx.get(f"{metrics_url(cluster)}/metrics", trust_env=False).text
    found = {name: re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE) for name, series in METRICS.items()}
    return Use(**{name: float(match[1]) if match else 0.0 for name, match in found.items()})


def metrics_url(cluster: Cluster) -> str:
    [pod] = operator_pods(cluster)
    with connect(cluster) as http:
        return f"http://{http.get(f'{PODS}/{pod}').json()['status']['podIP']}:8080"


def until(holds: Any, *, of: str, seconds: float, every: float = 0.5) -> None:
    deadline = time.monotonic() + seconds * CI_FACTOR
    while not holds():
        assert time.monotonic() < deadline, f"no {of}"
        time.sleep(every)

"""1 000 LoRADeployments with nothing to do cost the API server less than one write a minute together, renewals of the Lease aside.

Some serve from pods of their own, as many as one node has room for; the others wait for an adapter that is not there. Both are read in
full again and again, by events of their objects and by the slow re-list of the cache, one of which falls into the time that is measured.
"""

import json
import time
from collections import Counter
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.audit import AuditTail, told
from tests.e2e.conftest import CI_FACTOR
from tests.e2e.simulated import deployment

pytestmark = [pytest.mark.e2e, pytest.mark.full]

Json = dict[str, Any]
COUNT = 1_000
SERVING = 40
MINUTES = 11  # the cache is listed anew every 10
AT_ONCE = 20


def reasons(cluster: Cluster, namespace: str) -> Counter[str]:
    """Of Ready, of all of them."""
    text = cluster.kubectl("get", "loradeployments", "-n", namespace, "-o", "json")
    conditions = [item.get("status", {}).get("conditions", []) for item in json.loads(text)["items"]]
    return Counter(c["reason"] for found in conditions for c in found if c["type"] == "Ready")


def until(cluster: Cluster, namespace: str, wanted: dict[str, int], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds * CI_FACTOR
    while (found := reasons(cluster, namespace)) != wanted:
        assert time.monotonic() < deadline, f"expected {wanted}, found {found}"
        time.sleep(2)


def idle(namespace: str, number: int) -> Json:
    manifest = deployment(namespace, f"idle-{number}", answer="v1", strategy={"type": "Replace"}, replicas=1)
    if number >= SERVING:
        manifest["spec"]["adapterRef"]["name"] = "not-there"
    return manifest


def test_a_thousand_idle_deployments_write_nothing(cluster: Cluster, shop: str) -> None:
    for start in range(0, SERVING, AT_ONCE):
        cluster.apply(*(idle(shop, number) for number in range(start, start + AT_ONCE)))
        until(cluster, shop, {"Stable": start + AT_ONCE}, seconds=120)
    for start in range(SERVING, COUNT, 120):
        cluster.apply(*(idle(shop, number) for number in range(start, min(start + 120, COUNT))))
    until(cluster, shop, {"Stable": SERVING, "AdapterNotFound": COUNT - SERVING}, seconds=300)
    time.sleep(20)  # the last write has been seen
    with AuditTail(cluster.audit_log) as log:
        time.sleep(60 * MINUTES)
        writes = [told(write) for write in log.writes() if write["objectRef"].get("namespace") == shop]
    assert len(writes) < MINUTES, writes
    cluster.kubectl("delete", "loradeployments", "-n", shop, "--all", "--wait=false")

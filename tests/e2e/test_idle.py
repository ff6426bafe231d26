"""1 000 LoRADeployments that have nothing to do cost the API server less than one write a minute, renewals of the Lease aside."""

import json
import time
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.simulated import deployment
from tests.e2e.writes import writes_since

pytestmark = [pytest.mark.e2e, pytest.mark.full]

Json = dict[str, Any]
COUNT = 1_000
MINUTES = 5


def said(cluster: Cluster, namespace: str) -> list[str]:
    """Reasons of all of them."""
    text = cluster.kubectl("get", "loradeployments", "-n", namespace, "-o", "json")
    conditions = [item.get("status", {}).get("conditions", []) for item in json.loads(text)["items"]]
    return [c["reason"] for found in conditions for c in found if c["type"] == "Ready"]


def test_a_thousand_idle_deployments_write_nothing(cluster: Cluster, shop: str) -> None:
    """They wait for an adapter that is not there: every part of a reconcile runs, and no pod is needed."""
    items = []
    for number in range(COUNT):
        manifest = deployment(shop, f"idle-{number}", answer="v1", strategy={"type": "Replace"}, replicas=1)
        manifest["spec"]["adapterRef"]["name"] = "not-there"
        items.append(manifest)
    for start in range(0, COUNT, 100):
        cluster.apply(*items[start : start + 100])
    deadline = time.monotonic() + 300
    while said(cluster, shop).count("AdapterNotFound") < COUNT:
        assert time.monotonic() < deadline, "not all of them were looked at"
        time.sleep(2)
    time.sleep(20)
    before = cluster.audit_log.stat().st_size
    time.sleep(60 * MINUTES)
    writes = writes_since(cluster, before)
    assert len(writes) < MINUTES, [write["requestURI"] for write in writes]
    cluster.kubectl("delete", "loradeployments", "-n", shop, "--all", "--wait=false")

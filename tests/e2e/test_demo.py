"""The demo is the main job end to end: what it promises in its summary is asserted here, on the cluster that it leaves behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import read

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
NAMESPACE = "finance"


@pytest.fixture(scope="module")
def story(cluster: Cluster) -> str:
    """What the demo printed; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "demo", "up"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in resource["status"]["conditions"] if c["type"] == kind), {})


def resource(cluster: Cluster, kind: str, name: str) -> dict[str, Any]:
    found = read(cluster, kind, name, namespace=NAMESPACE)
    assert found is not None
    return found


def test_no_request_is_lost_while_v2_replaces_v1(story: str) -> None:
    line = next(line for line in story.splitlines() if "requests answered" in line)
    assert ", 0 failed" in line
    assert int(line.split()[0]) > 0


@pytest.mark.parametrize("name", ["finance-v1", "finance-v2"])
def test_both_versions_were_merged_validated_and_published_by_digest(story: str, cluster: Cluster, name: str) -> None:
    adapter = resource(cluster, "loraadapter", name)
    assert condition(adapter, "Merged")["status"] == "True"
    assert adapter["status"]["artifact"]["digest"].startswith("sha256:")
    assert adapter["status"]["merge"]["tensorsMerged"] == 210
    assert adapter["status"]["validation"]["overallScore"] > 0
    gates = {gate["name"]: gate["status"] for gate in adapter["status"]["validation"]["gates"]}
    assert {gates[name] for name in ("artifact", "finite", "fidelity", "effect")} == {"PASS"}


def test_v2_serves_and_answers_through_the_gateway(story: str, cluster: Cluster) -> None:
    deployment = resource(cluster, "loradeployment", "fin-assistant")
    assert deployment["status"]["stable"]["adapter"] == "finance-v2"
    reply = httpx.get(
        f"{cluster.gateway_url}/v1/models", headers={"Host": "fin.example.com"}, trust_env=False, timeout=30
    )
    assert reply.status_code == 200


def test_the_route_was_confirmed_by_a_request_on_its_fence(story: str, cluster: Cluster) -> None:
    route = resource(cluster, "httproute", "fin-assistant")
    [mark] = [
        header["value"]
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
        for header in match.get("headers", [])
        if header["name"] == "x-lora-fence"
    ]
    headers = {"Host": "fin.example.com", "x-lora-fence": mark}
    reply = httpx.get(f"{cluster.gateway_url}/health", headers=headers, trust_env=False, timeout=30)
    assert (reply.status_code, reply.headers["x-lora-fence"]) == (200, mark)


@pytest.mark.parametrize("path", ["/load_model", "/reset", "/metrics", "/docs"])
def test_no_other_route_of_the_runtime_is_exposed(story: str, cluster: Cluster, path: str) -> None:
    reply = httpx.get(f"{cluster.gateway_url}{path}", headers={"Host": "fin.example.com"}, trust_env=False, timeout=30)
    assert reply.status_code == 404


def test_the_answer_is_the_validated_one_beside_the_base_models(story: str) -> None:
    questions = json.loads((ROOT / "examples" / "finance_lora" / "demo_questions.json").read_text())
    assert questions[0]["question"] in story
    assert "questions whose answer changed" in story


def test_the_broken_adapter_was_refused_by_name(story: str, cluster: Cluster) -> None:
    broken = resource(cluster, "loraadapter", "finance-broken")
    assert condition(broken, "Ready")["reason"] == "WrongBase"
    assert condition(broken, "Stalled")["status"] == "True"


def test_serving_pods_and_jobs_run_restricted_and_without_a_token(story: str, cluster: Cluster) -> None:
    pods = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]
    assert pods
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_operator_wrote_nothing_of_the_users_and_a_second_apply_changes_nothing(
    story: str, cluster: Cluster
) -> None:
    for kind, name in (
        ("loraadapter", "finance-v1"),
        ("loraadapter", "finance-v2"),
        ("loradeployment", "fin-assistant"),
    ):
        text = cluster.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json", "--show-managed-fields")
        for entry in json.loads(text)["metadata"]["managedFields"]:
            if entry["manager"] == "lora-operator":
                fields = entry["fieldsV1"]
                assert "f:spec" not in fields
                assert set(fields.get("f:metadata", {})) <= {"f:finalizers"}
    for file in ("adapter-v1", "adapter-v2"):
        diff = cluster.kubectl("diff", "--server-side", "-f", str(ROOT / "examples" / f"{file}.yaml"))
        assert diff == ""


def test_a_settled_cluster_sees_no_write_of_the_operator(story: str, cluster: Cluster) -> None:
    seconds = 60
    deadline = time.monotonic() + 180
    while "previous" in resource(cluster, "loradeployment", "fin-assistant")["status"]:
        assert time.monotonic() < deadline, "the version before is still draining"
        time.sleep(1)
    while "Terminating" in cluster.kubectl("get", "namespaces"):
        assert time.monotonic() < deadline, "namespaces of the tests before are still being deleted"
        time.sleep(1)
    time.sleep(5)  # the last write of the drain has been seen
    start = cluster.audit_log.stat().st_size
    time.sleep(seconds)
    with cluster.audit_log.open() as log:
        log.seek(start)
        lines = [json.loads(line) for line in log if line.strip()]
    writes = [
        f"{line['verb']} {line['requestURI']}"
        for line in lines
        if line["verb"] in {"create", "update", "patch", "delete"}
        and line["user"].get("username", "").startswith("system:serviceaccount:lora-system:")
        and line.get("objectRef", {}).get("resource") != "leases"
    ]
    assert writes == []


def test_no_right_of_the_operator_was_missing(story: str, cluster: Cluster) -> None:
    refused = [
        f"{line['verb']} {line['requestURI']}"
        for line in map(json.loads, cluster.audit_log.read_text().splitlines())
        if line["user"].get("username", "").startswith("system:serviceaccount:lora-system:")
        and line["responseStatus"]["code"] == 403
        and "being terminated" not in line["responseStatus"].get("message", "")  # a namespace on its way out, no right
    ]
    assert refused == []

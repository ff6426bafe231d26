"""The devcluster is a real Kubernetes: what the operator relies on, seen on it."""

import json
from collections import Counter
from typing import Any

import httpx
import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import Wait, soon

pytestmark = pytest.mark.e2e

POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def container(image: str, *command: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "securityContext": CONTAINER_SECURITY,
        **more,
    }


def pod(namespace: str, name: str, one: dict[str, Any], *, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"restartPolicy": "Never", "securityContext": POD_SECURITY, "containers": [one]},
    }


def ended(found: dict[str, Any]) -> dict[str, Any]:
    statuses = found.get("status", {}).get("containerStatuses") or [{}]
    return dict(statuses[0].get("state", {}).get("terminated") or {})


def ready(found: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found.get("status", {}).get("conditions", []))


def test_version_is_that_of_upstream(cluster: Cluster) -> None:
    assert json.loads(cluster.kubectl("get", "--raw", "/version"))["gitVersion"] == "v1.37.2"


def test_a_pod_resolves_service_names_and_its_termination_message_is_kept(
    cluster: Cluster, namespace: str, operator_image: str, wait: Wait
) -> None:
    script = "import socket; open('/dev/termination-log','w').write(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"
    cluster.apply(pod(namespace, "dns", container(operator_image, "python", "-c", script)))
    found = wait("pod", "dns", lambda found: bool(ended(found)))
    assert ended(found)["message"] == cluster.instance.kubernetes_service


def test_memory_beyond_the_limit_is_oom_killed(
    cluster: Cluster, namespace: str, operator_image: str, wait: Wait
) -> None:
    hungry = container(
        operator_image, "python", "-c", "x = b'x' * (256 << 20)", resources={"limits": {"memory": "64Mi"}}
    )
    cluster.apply(pod(namespace, "hungry", hungry))
    found = wait("pod", "hungry", lambda found: bool(ended(found)))
    assert (ended(found)["reason"], ended(found)["exitCode"]) == ("OOMKilled", 137)


def test_more_gpus_than_there_are_stay_pending(
    cluster: Cluster, namespace: str, operator_image: str, wait: Wait
) -> None:
    greedy = container(operator_image, "python", "-c", "pass", resources={"limits": {"nvidia.com/gpu": "99"}})
    cluster.apply(pod(namespace, "greedy", greedy))

    def unschedulable(found: dict[str, Any]) -> bool:
        return any(c.get("reason") == "Unschedulable" for c in found["status"].get("conditions", []))

    found = wait("pod", "greedy", unschedulable)
    assert "nvidia.com/gpu" in json.dumps(found["status"])


def test_a_weighted_route_splits_requests(cluster: Cluster, namespace: str, operator_image: str, wait: Wait) -> None:
    for name in ("a", "b"):
        cluster.apply(
            pod(namespace, name, server(operator_image, name), labels={"app": name}), service(namespace, name)
        )
    backends = [{"name": name, "port": 80, "weight": weight} for name, weight in (("a", 90), ("b", 10))]
    host = f"{namespace}.example.com"
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "split", "namespace": namespace},
        "spec": {
            "parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}],
            "hostnames": [host],
            "rules": [{"backendRefs": backends}],
        },
    }
    cluster.apply(route)
    for name in ("a", "b"):
        wait("pod", name, ready)

    def accepted(found: dict[str, Any]) -> bool:
        parents = found.get("status", {}).get("parents", [])
        return any(
            c["type"] == "ResolvedRefs" and c["status"] == "True" for parent in parents for c in parent["conditions"]
        )

    wait("httproute", "split", accepted)
    with httpx.Client(trust_env=False, headers={"Host": host}) as client:
        # The data plane follows its own status within a moment, and may know of one pod before the other.
        soon(
            lambda: asked(client, cluster, times=20).keys() == {"a", "b"},
            what="not both versions answer, and they alone",
        )
        answers = asked(client, cluster, times=100)
    assert answers["a"] == pytest.approx(90, abs=3)
    assert answers["b"] == pytest.approx(10, abs=3)


def asked(client: httpx.Client, cluster: Cluster, *, times: int) -> Counter[str]:
    """What so many requests are answered."""
    return Counter(client.get(cluster.gateway_url).text for _ in range(times))


def test_a_claim_made_again_finds_its_files(cluster: Cluster, namespace: str) -> None:
    directory = cluster.create_claim(namespace=namespace, name="models")
    (directory / "file").write_text("kept")
    cluster.kubectl("delete", "pvc", "models", "-n", namespace, "--wait=true", "--timeout=60s")
    again = cluster.create_claim(namespace=namespace, name="models")  # waits until it is bound
    assert (again / "file").read_text() == "kept"


def server(image: str, name: str) -> dict[str, Any]:
    script = (
        "import http.server as h\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        self.send_response(200); self.send_header('Content-Length','1'); self.end_headers(); self.wfile.write(b'{name}')\n"
        "h.ThreadingHTTPServer(('', 8000), H).serve_forever()\n"
    )
    probe = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
    return container(image, "python", "-c", script, ports=[{"containerPort": 8000}], readinessProbe=probe)


def service(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8000}]},
    }

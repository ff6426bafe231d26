"""LoRADeployments whose runtime is the simulator (tests/runtime_simulator), so that a rollout takes seconds, and what tests ask of them.

The simulator is a profile like any other; everything else is real: chart, operator, merge Job, claims, Gateway, kube-proxy.
"""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from demo.place import install_chart
from devcluster.cluster import Cluster
from tests.e2e.conftest import read
from tests.e2e.traffic import Traffic

Json = dict[str, Any]
SIMULATOR = Path(__file__).parents[1] / "runtime_simulator"
EVERY = 0.1  # seconds between two requests
GATEWAY = {"parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}]}
ROUTES = {
    "/v1/chat/completions": "/v1/chat/completions",
    "/v1/completions": "/v1/completions",
    "/v1/models": "/v1/models",
    "/api/v1/inference": "/v1/chat/completions",
    "/api/v1/health": "/health",
}


def install_with_simulator(cluster: Cluster, *, images: dict[str, str], metrics_url: str = "") -> None:
    """The operator with the simulator as one more profile of its settings, and with the address of Traefik."""
    image = cluster.images.build(name="runtime-simulator", dockerfile=SIMULATOR / "Dockerfile", context=SIMULATOR)
    cluster.images.load(image, node=1)
    profile = {
        "image": image,
        "command": ["python3", "/opt/simulator/server.py"],
        "args": ["--model", "{modelPath}", "--name", "{servedModelName}", "--port", "{port}"],
        "port": 8000,
        "readyPath": "/health",
        "livePath": "/health",
        "metricsPath": "/metrics",
        "routes": ROUTES,
        "requests": {"cpu": "20m"},
        "startupSeconds": 120,
        "shutdownSeconds": 5,
        "shmSize": "16Mi",
    }
    traefik = {"kind": "traefik", "url": cluster.gateway_url} | ({"metricsUrl": metrics_url} if metrics_url else {})
    routers = [{"ingressClass": "nginx", **traefik}, {"gatewayClass": "traefik", **traefik}]
    settings = json.dumps({"profiles": {"simulator": profile}, "routers": routers})
    arguments = ["--kubeconfig", str(cluster.kubeconfig), "--set-json", f"settings={settings}"]
    install_chart(helm_arguments=arguments, images=images)


def host(name: str) -> str:
    """Host name of a deployment, so that two never share a route."""
    return f"{name}.example.com"


def deployment(namespace: str, name: str, *, answer: str, strategy: Json, replicas: int = 2, **spec: Any) -> Json:
    """A LoRADeployment whose pods answer `answer`. What an A/B test measures is throughput, unless `spec` says otherwise."""
    metrics = {"metrics": [{"name": "conversion", "builtin": "throughput"}]}
    measured = {"analysis": metrics} if strategy["type"] == "ABTest" else {}
    return {
        "apiVersion": "loraops.dev/v1alpha1",
        "kind": "LoRADeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "adapterRef": {"name": "a"},
            "replicas": replicas,
            "runtime": {
                "profile": "simulator",
                "servedModelName": "sim",
                "drainSeconds": 8,
                "args": ["--answer", answer],
            },
            "strategy": strategy,
            "traffic": {"gateway": {**GATEWAY, "hostnames": [host(name)]}},
            **measured,
            **spec,
        },
    }


def serves(revision_before: str = "") -> Any:
    """The declared version is stable, and it is not the one before."""

    def holds(found: Json) -> bool:
        status = found.get("status", {})
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        revision = status.get("stable", {}).get("revision", "")
        return bool(current and status.get("phase") == "Stable" and revision not in ("", revision_before))

    return holds


def at(phase: str, **step: Any) -> Any:
    def holds(found: Json) -> bool:
        status = found.get("status", {})
        return bool(status.get("phase") == phase and step.items() <= status.get("step", {}).items())

    return holds


def kill_operator(cluster: Cluster) -> None:
    """kill -9: the pod is gone at once, its Deployment starts another."""
    label = "app.kubernetes.io/name=lora-operator"
    cluster.kubectl("delete", "pod", "-n", "lora-system", "-l", label, "--force", "--grace-period=0", "--wait=false")


def ask(cluster: Cluster, namespace: str, name: str, verb: str) -> None:
    """`kubectl annotate`: a one-shot request about the candidate."""
    found = read(cluster, "loradeployment", name, namespace=namespace)
    assert found is not None
    value = f"{found['status']['candidate']['revision']}/{uuid4().hex[:6]}"
    cluster.kubectl("annotate", "loradeployment", name, "-n", namespace, f"loraops.dev/{verb}={value}", "--overwrite")


def no_request_was_lost(traffic: Traffic) -> None:
    assert traffic.seen.lost == ""
    assert traffic.seen.answers.total() > 100
    assert traffic.seen.streams > 0

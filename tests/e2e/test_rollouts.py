"""BlueGreen and Canary on the real cluster under an open-loop load: no request is lost, no stream breaks, and the operator is
killed in the middle of each.

The runtime is a simulator (tests/runtime_simulator), a profile like any other, so that a rollout takes seconds; everything else
is real: chart, operator, merge Job, claims, Gateway, kube-proxy.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from demo.place import install_chart
from devcluster.cluster import Cluster
from tests.e2e.conftest import RESTRICTED, Wait, read, wait_for
from tests.e2e.test_bad_input import adapter, has, write_adapter, write_model
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
SIMULATOR = Path(__file__).parents[1] / "runtime_simulator"
EVERY = 0.1  # seconds between two requests
ROUTES = {
    "/v1/chat/completions": "/v1/chat/completions",
    "/v1/completions": "/v1/completions",
    "/v1/models": "/v1/models",
    "/api/v1/inference": "/v1/chat/completions",
    "/api/v1/health": "/health",
}


@pytest.fixture(scope="module")
def simulated(cluster: Cluster, operator_image: str, job_image: str) -> None:
    """The operator with the simulator as one more profile of its settings."""
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
    settings = json.dumps({"profiles": {"simulator": profile}})
    arguments = ["--kubeconfig", str(cluster.kubeconfig), "--set-json", f"settings={settings}"]
    install_chart(helm_arguments=arguments, images={"operator": operator_image, "job": job_image})


@pytest.fixture(scope="module")
def shop(cluster: Cluster, simulated: None) -> Iterator[str]:
    """A namespace with a claim and one adapter that is Ready; versions differ by the runtime's arguments."""
    name = f"t-{uuid4().hex[:8]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    claim = cluster.create_claim(namespace=name, name="models")
    shape = {"model.layers.0.self_attn.q_proj.weight": (8, 8)}
    write_model(claim / "base", shape, {"model_type": "llama", "vocab_size": 8})
    write_adapter(claim / "adapters" / "good", out=8)
    cluster.apply(adapter(name))
    wait_for(cluster, "loraadapter", "a", has("ValidationDisabled"), namespace=name, seconds=150)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(shop: str) -> str:
    """Every test of this module works in the same one."""
    return shop


def host(name: str) -> str:
    """Host name of a deployment, so that two never share a route."""
    return f"{name}.example.com"


def deployment(namespace: str, name: str, *, answer: str, strategy: Json, replicas: int = 2, **spec: Any) -> Json:
    """A LoRADeployment whose pods answer `answer`."""
    gateway = {
        "parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}],
        "hostnames": [host(name)],
    }
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
            "traffic": {"gateway": gateway},
            **spec,
        },
    }


def serves(revision_before: str = "") -> Any:
    """The declared version is stable, and it is not the one before."""

    def holds(found: Json) -> bool:
        status = found.get("status", {})
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        revision = status.get("stable", {}).get("revision", "")
        return current and status.get("phase") == "Stable" and revision not in ("", revision_before)

    return holds


def at(phase: str, **step: Any) -> Any:
    def holds(found: Json) -> bool:
        status = found.get("status", {})
        return status.get("phase") == phase and step.items() <= status.get("step", {}).items()

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
    assert dict(traffic.seen.failures) == {}
    assert traffic.seen.answers.total() > 100
    assert traffic.seen.streams > 0


def test_blue_green_switches_and_comes_back_without_losing_a_request(
    cluster: Cluster, namespace: str, wait: Wait
) -> None:
    strategy = {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 3, "keepPreviousSeconds": 300}}
    cluster.apply(deployment(namespace, "bg", answer="v1", strategy=strategy))
    first = wait("loradeployment", "bg", serves(), seconds=90)["status"]["stable"]["revision"]
    with Traffic(url=cluster.gateway_url, host=host("bg"), model="sim", every=EVERY) as traffic:
        cluster.apply(deployment(namespace, "bg", answer="v2", strategy=strategy))
        wait("loradeployment", "bg", at("Preparing", sub="Delay"), seconds=90)
        assert set(traffic.seen.answers) == {"v1"}, "no request before the switch"
        kill_operator(cluster)
        switched = wait("loradeployment", "bg", serves(first), seconds=90)
        assert switched["status"]["previous"]["revision"] == first
        wait("loradeployment", "bg", lambda _: traffic.only("v2"), seconds=20)
        cluster.apply(deployment(namespace, "bg", answer="v1", strategy=strategy))
        back = wait("loradeployment", "bg", serves(switched["status"]["stable"]["revision"]), seconds=20)
        assert back["status"]["stable"]["revision"] == first
        wait("loradeployment", "bg", lambda _: traffic.only("v1"), seconds=20)
    no_request_was_lost(traffic)
    assert [entry["strategy"] for entry in back["status"]["history"]] == ["BlueGreen"] * 3
    cluster.kubectl("delete", "loradeployment", "bg", "-n", namespace)


def test_a_canary_takes_its_steps_without_losing_a_request(cluster: Cluster, namespace: str, wait: Wait) -> None:
    name = "through-gateway"
    steps = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {"seconds": 3}}]
    strategy = {"type": "Canary", "canary": {"steps": steps}}
    cluster.apply(deployment(namespace, name, answer="v1", strategy=strategy))
    first = wait("loradeployment", name, serves(), seconds=90)["status"]["stable"]["revision"]
    with Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=EVERY) as traffic:
        cluster.apply(deployment(namespace, name, answer="v2", strategy=strategy))
        paused = wait("loradeployment", name, at("Paused", index=1), seconds=90)
        assert paused["status"]["pause"]["reason"] == "AwaitingPromote"
        assert (paused["status"]["candidate"]["weight"], paused["status"]["stable"]["weight"]) == (25, 75)
        before = traffic.seen.answers.copy()
        wait("loradeployment", name, lambda _: (traffic.seen.answers - before).total() >= 60, seconds=30)
        assert 0.15 < traffic.shares(before)["v2"] < 0.35
        kill_operator(cluster)
        ask(cluster, namespace, name, "promote")
        done = wait("loradeployment", name, serves(first), seconds=120)
        wait("loradeployment", name, lambda _: traffic.only("v2"), seconds=20)
        wait("loradeployment", name, lambda found: "previous" not in found["status"], seconds=90)
    no_request_was_lost(traffic)
    assert done["status"]["lastRequests"]["promote"]["result"] == "Accepted"
    cluster.kubectl("delete", "loradeployment", name, "-n", namespace)


def test_a_canary_through_the_plain_service_counts_pods_and_leaves_no_label(
    cluster: Cluster, namespace: str, wait: Wait
) -> None:
    strategy = {"type": "Canary", "canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}
    plain: Json = {"traffic": {"service": {}}}
    cluster.apply(deployment(namespace, "plain", answer="v1", strategy=strategy, **plain))
    first = wait("loradeployment", "plain", serves(), seconds=90)["status"]["stable"]["revision"]
    cluster.apply(deployment(namespace, "plain", answer="v2", strategy=strategy, **plain))
    paused = wait("loradeployment", "plain", at("Paused", index=1), seconds=90)["status"]
    assert (paused["candidate"]["weight"], paused["stable"]["weight"]) == (50, 50)
    service = read(cluster, "service", "plain", namespace=namespace)
    assert service is not None
    assert service["spec"]["selector"] == {"loraops.dev/deployment": "plain", "loraops.dev/in-service": "true"}
    labelled = pods_in_service(cluster, namespace)
    assert sorted(labelled) == sorted([first, paused["candidate"]["revision"]])
    ask(cluster, namespace, "plain", "promote")
    done = wait("loradeployment", "plain", serves(first), seconds=90)["status"]
    service = read(cluster, "service", "plain", namespace=namespace)
    assert service is not None
    assert service["spec"]["selector"]["loraops.dev/revision"] == done["stable"]["revision"]
    wait("loradeployment", "plain", lambda _: pods_in_service(cluster, namespace) == [], seconds=60)
    cluster.kubectl("delete", "loradeployment", "plain", "-n", namespace)


def pods_in_service(cluster: Cluster, namespace: str) -> list[str]:
    """Revisions of the pods that carry the label."""
    text = cluster.kubectl("get", "pods", "-n", namespace, "-l", "loraops.dev/in-service=true", "-o", "json")
    return [pod["metadata"]["labels"]["loraops.dev/revision"] for pod in json.loads(text)["items"]]

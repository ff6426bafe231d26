"""`loractl` against an API server over real HTTP: the command in this thread, the server in another."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lora_client.names import ADAPTER, JOB, LORA_DEPLOYMENT, POD
from loractl.cli import app
from loractl.completion import PATIENCE_VARIABLE
from tests.client.loractl.screen import Open, Screen
from tests.client.loractl.whole_cluster import WholeCluster
from tests.fakes.api_server import serving, write_kubeconfig

NAMESPACE = "finance"
Json = dict[str, Any]


@dataclass
class Terminal:
    """Runs the command as a shell would, without a terminal."""

    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None, **environment: str) -> Result:
        variables = {"KUBECONFIG": str(self.kubeconfig), "COLUMNS": "80", "TERM": "dumb", **environment}
        return CliRunner().invoke(app, list(arguments), input=stdin, env=variables, prog_name="loractl")


@pytest.fixture
def cluster() -> Iterator[WholeCluster]:
    """An API server of its own thread and event loop."""
    server, ready, loop = WholeCluster(), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(server) as url:
            server.url, server.loop, server.thread = url, loop, threading.get_ident()
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    yield server
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other things completes later, not less."""
    monkeypatch.setenv(PATIENCE_VARIABLE, "60")


@pytest.fixture
def loractl(cluster: WholeCluster, tmp_path: Path) -> Terminal:
    """The command, pointed at that server."""
    return Terminal(write_kubeconfig(tmp_path / "kubeconfig", server=cluster.url, namespace=NAMESPACE))


@pytest.fixture
def screen_of(loractl: Terminal) -> Iterator[Open]:
    """Opens screens; none outlives the test."""
    opened: list[Screen] = []

    def open_screen(*arguments: str) -> Screen:
        opened.append(Screen(*arguments, kubeconfig=loractl.kubeconfig))
        return opened[-1]

    yield open_screen
    for screen in opened:
        screen.close()


def ready_condition(*, status: str = "False", reason: str, message: str = "", stalled: bool = False) -> list[Json]:
    """Ready and Stalled as the operator writes them."""
    time = "2026-01-01T12:00:00Z"
    return [
        {"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": time},
        {"type": "Stalled", "status": str(stalled), "reason": reason, "message": "", "lastTransitionTime": time},
    ]


def adapter(name: str = "fin-v2", **status: Any) -> Json:
    """A LoRAAdapter that the operator has seen; `status` is laid over the least it writes."""
    spec = {
        "version": "2.0.0",
        "base": {"source": {"pvc": {"claimName": "models", "path": "smollm2-135m"}}},
        "adapters": [{"name": "main", "source": {"pvc": {"claimName": "models", "path": "adapters/v2"}}}],
        "artifact": {"store": {"pvc": {"claimName": "models", "path": "artifacts"}}},
    }
    return {
        "apiVersion": ADAPTER.api_version,
        "kind": ADAPTER.kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "generation": 1,
            "creationTimestamp": "2026-01-01T12:00:00Z",
        },
        "spec": spec,
        "status": {"observedGeneration": 1, **status},
    }


def ready_adapter(name: str = "fin-v2", **more: Any) -> Json:
    """One that may be served."""
    digest = "sha256:" + "ab" * 32
    return adapter(
        name,
        phase="Ready",
        conditions=ready_condition(
            status="True", reason="Ready", message=f"{digest[:19]} may be served; score 0.87, grade good"
        ),
        buildHash="5f2c5f2c5f2c5f2c",
        artifact={"digest": digest, "uri": f"pvc://models/artifacts/{NAMESPACE}/{name}/5f2c5f2c5f2c5f2c"},
        merge={"seconds": 3.4, "tensorsMerged": 210, "tensorsCopied": 62, "deltaRetentionMin": 0.97},
        validation={
            "id": "v-1",
            "mode": "Standard",
            "overallScore": 0.8712,
            "grade": "good",
            "dimensions": {"basic": {"score": 0.9, "ci95": [0.85, 0.94], "n": 60}},
            "gates": [
                {"name": "fidelity", "kind": "hard", "status": "PASS", "observed": None, "threshold": None},
                {"name": "score", "kind": "soft", "status": "PASS", "observed": 0.8712, "threshold": 0.8},
            ],
            "recommendations": ["more-safety-examples"],
            "probes": [{"prompt": "When is payment due?", "answer": "Within", "margin": 2.5}],
            "reportUri": "pvc://models/artifacts/finance/fin-v2/5f2c5f2c5f2c5f2c/validation/v-1.json",
        },
        jobs={"merge": {"name": f"{name}-m-1-1", "attempt": 1, "result": "Succeeded"}},
        **more,
    )


def deployment(name: str = "fin-assistant", *, ref: str = "fin-v2", strategy: str = "Canary", **status: Any) -> Json:
    """A LoRADeployment that the operator has seen."""
    return {
        "apiVersion": LORA_DEPLOYMENT.api_version,
        "kind": LORA_DEPLOYMENT.kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "generation": 1,
            "creationTimestamp": "2026-01-01T12:00:00Z",
        },
        "spec": {
            "adapterRef": {"name": ref},
            "replicas": 1,
            "strategy": {"type": strategy},
            "traffic": {"service": {}},
        },
        "status": {"observedGeneration": 1, **status},
    }


def version(revision: str, *, ref: str, weight: int, ready: int = 1, target: int | None = None) -> Json:
    """stable or candidate of a status."""
    said = {
        "revision": revision,
        "adapter": ref,
        "artifactDigest": "sha256:" + "cd" * 32,
        "weight": weight,
        "readyReplicas": ready,
    }
    return said if target is None else said | {"targetWeight": target}


def stable_deployment(name: str = "fin-assistant", *, ref: str = "fin-v2", **more: Any) -> Json:
    """One that serves what it declares."""
    return deployment(
        name,
        ref=ref,
        phase="Stable",
        conditions=ready_condition(
            status="True", reason="Stable", message=f"revision 61fd0d39 of adapter {ref} serves"
        ),
        stable=version("61fd0d39", ref=ref, weight=100),
        endpoints=["http://fin.example.com/v1/chat/completions"],
        **more,
    )


def job(name: str = "fin-v2-m-1-1", *, of: str = "fin-v2", failed: str = "") -> Json:
    """A Job of an adapter."""
    conditions = [{"type": "Failed", "status": "True", "reason": failed}] if failed else []
    return {
        "apiVersion": "batch/v1",
        "kind": JOB.kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"loraops.dev/adapter": of}},
        "spec": {},
        "status": {"conditions": conditions},
    }


def pod(name: str, *, labels: Json, **status: Any) -> Json:
    """Any pod."""
    return {
        "apiVersion": "v1",
        "kind": POD.kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": labels,
            "creationTimestamp": "2026-01-01T12:00:00Z",
        },
        "spec": {"containers": [{"name": "merge"}], "initContainers": [{"name": "fetch"}]},
        "status": {"phase": "Pending", **status},
    }


def job_pod(name: str = "fin-v2-m-1-1-x", *, job_name: str = "fin-v2-m-1-1", of: str = "fin-v2", **status: Any) -> Json:
    """The pod of a Job."""
    return pod(name, labels={"loraops.dev/adapter": of, "batch.kubernetes.io/job-name": job_name}, **status)

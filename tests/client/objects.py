"""Objects as the API server returns them, as small as a test can use."""

from typing import Any

from lora_client.names import ADAPTER, GROUP, LORA_DEPLOYMENT

Json = dict[str, Any]


def conditions(*, ready: str, reason: str, message: str = "", stalled: bool = False) -> list[Json]:
    """Ready and Stalled."""
    base = {"reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return [{"type": "Ready", "status": ready, **base}, {"type": "Stalled", "status": str(stalled), **base}]


def adapter(name: str = "fin", *, labels: Json | None = None, **spec: Any) -> Json:
    """A LoRAAdapter with every required field."""
    pvc = {"pvc": {"claimName": "models", "path": "x"}}
    required = {"base": {"source": pvc}, "adapters": [{"name": "main", "source": pvc}], "artifact": {"store": pvc}}
    return {
        "apiVersion": ADAPTER.api_version,
        "kind": ADAPTER.kind,
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "spec": {**required, **spec},
    }


def deployment(name: str = "fin", *, ref: str = "fin", labels: Json | None = None, **spec: Any) -> Json:
    """A LoRADeployment with every required field."""
    return {
        "apiVersion": LORA_DEPLOYMENT.api_version,
        "kind": LORA_DEPLOYMENT.kind,
        "metadata": {"name": name, **({"labels": labels} if labels else {})},
        "spec": {"adapterRef": {"name": ref}, "runtime": {"profile": "vllm"}, "traffic": {"service": {}}, **spec},
    }


def version(revision: str, *, adapter: str = "fin", weight: int = 100) -> Json:
    """stable, candidate or previous."""
    return {
        "revision": revision,
        "adapter": adapter,
        "artifactDigest": "sha256:" + "0" * 64,
        "weight": weight,
        "readyReplicas": 1,
    }


def stored_revision(name: str, revision: str, *, number: int, adapter: str = "fin") -> Json:
    """A ControllerRevision of the operator."""
    return {
        "metadata": {"name": f"{name}-{revision}", "labels": {f"{GROUP}/deployment": name}},
        "revision": number,
        "data": {"schema": 1, "revision": revision, "adapter": adapter, "artifactDigest": ""},
    }


def finished(revision: str, *, name: str = "fin", adapter: str = "fin", result: str = "Succeeded") -> Json:
    """An entry of status.history."""
    return {
        "deploymentId": f"finance/{name}/{revision}",
        "adapter": adapter,
        "strategy": "Replace",
        "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:01:00Z",
        "durationSeconds": 60,
        "result": result,
        "reason": "Promoted" if result == "Succeeded" else "PodFailed",
    }

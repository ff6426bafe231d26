"""A workflow: one LoRAAdapter and the LoRADeployment it feeds, joined by the label `loraops.dev/workflow-id`. Pure.

    request ──manifests──► LoRAAdapter + LoRADeployment ──state_of──► pending merging validating deploying
                                                                       completed failed cancelled
There is no other store: everything about a workflow is read from its two objects. A deployment outlives workflows: the
next one that feeds it takes the label over. The adapter keeps the deployment's name in an annotation, and the deployment's
history tells how the older workflow ended.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from lora_client.adapter import Adapter
from lora_client.deployment import Deployment
from lora_client.errors import Invalid
from lora_client.names import (
    ADAPTER,
    ANNOTATION_WORKFLOW_DEPLOYMENT,
    LABEL_WORKFLOW,
    LORA_DEPLOYMENT,
    AdapterPhase,
    DeploymentPhase,
    Reason,
)
from lora_client.sources import parse_claim_path

__all__ = [
    "AdapterSource",
    "Workflow",
    "WorkflowRequest",
    "WorkflowState",
    "build_adapter",
    "build_deployment",
    "state_of",
]

NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
LONGEST_NAME = 45


class WorkflowState(StrEnum):
    """Where a workflow stands."""

    PENDING = "pending"
    MERGING = "merging"
    VALIDATING = "validating"
    DEPLOYING = "deploying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Nothing more happens without a person."""
        return self in {WorkflowState.COMPLETED, WorkflowState.FAILED, WorkflowState.CANCELLED}


@dataclass(frozen=True, kw_only=True)
class AdapterSource:
    """One LoRA adapter to merge. `source` as in sources.py."""

    source: str | Path | Mapping[str, Any]
    name: str = "main"
    weight: float = 1.0
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkflowRequest:
    """What shall be built and served. Mappings are parts of the resources' spec, exactly as docs/fields.md has them.

    A field left at None is not written, so that the operator's settings and the schema's defaults hold.
    """

    name: str
    """Of the LoRAAdapter; a new recipe needs a new name, because an adapter is one immutable build."""
    base: str | Path | Mapping[str, Any]
    adapters: Sequence[AdapterSource]
    store: str = "pvc://models/artifacts"
    """Where artifacts are published, and where local directories are copied to (below `sources/`)."""
    base_digest: str = ""
    deployment: str | None = None
    """Of the LoRADeployment; None: the adapter's name."""
    runtime: Mapping[str, Any] = field(
        default_factory=lambda: {"profile": "vllm", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    )
    traffic: Mapping[str, Any] = field(default_factory=lambda: {"service": {}})
    deploy: bool = True
    """False: build and validate only."""
    merge: Mapping[str, Any] | None = None
    quantization: Mapping[str, Any] | None = None
    validation: Mapping[str, Any] | None = None
    job: Mapping[str, Any] | None = None
    describe: Mapping[str, Any] | None = None
    """Descriptive fields of the adapter: adapterType, version, description, trainedOnDataset, trainingMetrics, tags, …"""
    replicas: int | None = None
    strategy: Mapping[str, Any] | None = None
    target_environment: str | None = None
    analysis: Mapping[str, Any] | None = None
    health_check: Mapping[str, Any] | None = None
    force_deploy: bool | None = None

    @property
    def deployment_name(self) -> str:
        """Of the LoRADeployment."""
        return self.deployment or self.name


@dataclass(frozen=True)
class Workflow:
    """A workflow as its two objects tell it. Either may be None: not created, or deleted since."""

    id: str
    namespace: str
    state: WorkflowState
    reason: str
    message: str
    adapter: Adapter | None
    deployment: Deployment | None

    @property
    def name(self) -> str:
        """The adapter's name; the deployment's where the adapter is gone."""
        found = self.adapter or self.deployment
        return found.name if found else ""

    @property
    def started(self) -> datetime | None:
        """When the first of the two objects was created; a deployment may be older than the workflow."""
        return self.adapter.created if self.adapter else None

    @property
    def succeeded(self) -> bool:
        """It is completed."""
        return self.state is WorkflowState.COMPLETED


def check_name(name: str, *, where: str) -> str:
    """The rule of both resources' names, told before anything is sent."""
    if len(name) > LONGEST_NAME or not NAME.match(name):
        raise Invalid(
            f"{where}: found {name!r}, expected at most {LONGEST_NAME} characters of a-z, 0-9 and -, beginning with a letter "
            "and not ending with -; choose another name"
        )
    return name


def build_adapter(
    request: WorkflowRequest,
    *,
    workflow_id: str,
    namespace: str,
    base: Mapping[str, Any],
    adapters: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The LoRAAdapter. `base` and `adapters` are the parsed sources, local directories already copied."""
    optional: dict[str, Any] = {
        "merge": request.merge, "quantization": request.quantization, "validation": request.validation, "job": request.job
    }  # fmt: skip
    spec: dict[str, Any] = dict(request.describe or {})
    spec["base"] = {"source": dict(base)} | ({"digest": request.base_digest} if request.base_digest else {})
    spec["adapters"] = [
        {"name": one.name, "source": dict(source), "weight": one.weight}
        | ({"digest": one.digest} if one.digest else {})
        for one, source in zip(request.adapters, adapters, strict=True)
    ]
    spec |= {key: dict(value) for key, value in optional.items() if value is not None}
    spec["artifact"] = {"store": parse_claim_path(request.store, where="store").source}
    meta = _metadata(request.name, namespace=namespace, workflow_id=workflow_id)
    if request.deploy:
        meta["annotations"] = {ANNOTATION_WORKFLOW_DEPLOYMENT: request.deployment_name}
    return {"apiVersion": ADAPTER.api_version, "kind": ADAPTER.kind, "metadata": meta, "spec": spec}


def build_deployment(request: WorkflowRequest, *, workflow_id: str, namespace: str) -> dict[str, Any]:
    """The LoRADeployment."""
    optional: dict[str, Any] = {
        "replicas": request.replicas,
        "strategy": request.strategy,
        "targetEnvironment": request.target_environment,
        "analysis": request.analysis,
        "healthCheck": request.health_check,
        "forceDeploy": request.force_deploy,
    }
    spec: dict[str, Any] = {
        "adapterRef": {"name": request.name},
        "runtime": dict(request.runtime),
        "traffic": dict(request.traffic),
    }
    spec |= {key: value for key, value in optional.items() if value is not None}
    return {
        "apiVersion": LORA_DEPLOYMENT.api_version,
        "kind": LORA_DEPLOYMENT.kind,
        "metadata": _metadata(request.deployment_name, namespace=namespace, workflow_id=workflow_id),
        "spec": spec,
    }


def _metadata(name: str, *, namespace: str, workflow_id: str) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "labels": {LABEL_WORKFLOW: workflow_id}}


def state_of(workflow_id: str, *, adapter: Adapter | None, deployment: Deployment | None) -> Workflow:
    """What the two objects say. `deployment` is the labelled one, or the one that the adapter's annotation names."""
    found = adapter or deployment
    namespace = "" if found is None else found.namespace
    state, reason, message = _judged(workflow_id, adapter, deployment)
    return Workflow(workflow_id, namespace, state, reason, message, adapter, deployment)


_Judged = tuple[WorkflowState, str, str]


def _judged(workflow_id: str, adapter: Adapter | None, deployment: Deployment | None) -> _Judged:
    if any(one is not None and one.cancelled and one.workflow_id == workflow_id for one in (adapter, deployment)):
        return WorkflowState.CANCELLED, "Cancelled", "cancelled; what was stable goes on serving"
    if adapter is None:
        return _without_adapter(deployment)
    return _build_state(adapter, deployment) or _served_state(workflow_id, adapter, deployment)


def _served_state(workflow_id: str, adapter: Adapter, deployment: Deployment | None) -> _Judged:
    """Once there is an artifact."""
    name = adapter.annotations.get(ANNOTATION_WORKFLOW_DEPLOYMENT, "")
    if deployment is None and not name:
        return WorkflowState.COMPLETED, adapter.reason, adapter.message
    if deployment is None:
        return WorkflowState.FAILED, "DeploymentNotFound", f"LoRADeployment {name} is gone; run the workflow again"
    if deployment.workflow_id != workflow_id:
        return _taken_over(adapter, deployment)
    return _rollout_state(adapter.name, deployment)


def _without_adapter(deployment: Deployment | None) -> _Judged:
    if deployment is None:
        return WorkflowState.PENDING, "Pending", "nothing was created yet"
    if deployment.stable is not None and deployment.stable.adapter == deployment.adapter:
        return WorkflowState.COMPLETED, deployment.reason, deployment.message
    message = f"LoRAAdapter {deployment.adapter} is gone; apply it again or run the workflow again"
    return WorkflowState.FAILED, Reason.ADAPTER_NOT_FOUND, message


_BUILD = {
    AdapterPhase.PENDING: WorkflowState.PENDING,
    AdapterPhase.SUSPENDED: WorkflowState.PENDING,
    AdapterPhase.RESOLVING: WorkflowState.MERGING,
    AdapterPhase.MERGING: WorkflowState.MERGING,
    AdapterPhase.VALIDATING: WorkflowState.VALIDATING,
}


def _build_state(adapter: Adapter, deployment: Deployment | None) -> _Judged | None:
    """While there is no artifact that may be served; None once there is."""
    phase = adapter.phase
    if not adapter.current:
        return WorkflowState.PENDING, "Pending", "the operator has not looked at the LoRAAdapter yet"
    if phase == AdapterPhase.READY:
        return None
    if phase in _BUILD:
        state = WorkflowState.FAILED if adapter.stalled else _BUILD[AdapterPhase(phase)]
        return state, adapter.reason, adapter.message
    forced = deployment is not None and bool(deployment.spec.get("forceDeploy"))
    hard = any(gate.kind == "hard" and gate.status in {"FAIL", "INCONCLUSIVE"} for gate in adapter.gates)
    if phase == AdapterPhase.REJECTED and forced and not hard:
        return None
    return WorkflowState.FAILED, adapter.reason, adapter.message


def _taken_over(adapter: Adapter, deployment: Deployment) -> _Judged:
    """A later workflow feeds the deployment now: the history knows how this one ended."""
    entry = next((one for one in deployment.history if one.adapter == adapter.name), None)
    if entry is not None and entry.result == "Succeeded":
        return WorkflowState.COMPLETED, entry.reason, f"served from {entry.completed}; a later workflow took over since"
    if deployment.stable is not None and deployment.stable.adapter == adapter.name:
        return WorkflowState.COMPLETED, deployment.reason, "serves until the later workflow's version is ready"
    reason = entry.reason if entry is not None else Reason.SUPERSEDED
    return (
        WorkflowState.FAILED,
        reason,
        f"a later workflow took LoRADeployment {deployment.name} over before this one served",
    )


def _rollout_state(adapter: str, deployment: Deployment) -> _Judged:
    words = (deployment.reason, deployment.message)
    if not deployment.current:
        return WorkflowState.DEPLOYING, "Pending", "the operator has not looked at the LoRADeployment yet"
    if deployment.phase == DeploymentPhase.STABLE and deployment.held_revision:
        message = f"went back to an older revision; {deployment.held_revision} is held until retry is asked"
        return WorkflowState.FAILED, Reason.ROLLED_BACK, message
    if deployment.phase == DeploymentPhase.STABLE and deployment.stable and deployment.stable.adapter == adapter:
        return WorkflowState.COMPLETED, *words
    if deployment.phase == DeploymentPhase.ABORTED:
        abort = deployment.abort
        return WorkflowState.FAILED, str(abort.get("reason") or words[0]), str(abort.get("message") or words[1])
    if deployment.stalled or deployment.deleting:
        return WorkflowState.FAILED, *words
    return WorkflowState.DEPLOYING, *words

"""The exit code of a workflow that has ended, as loractl judges the objects it is read from. Pure."""

from collections.abc import Mapping
from typing import Any

from lora_client.names import Reason
from lora_client.resource import Resource
from lora_client.workflow import Workflow, WorkflowState
from loractl.verdict import GATE, INFRASTRUCTURE, OK, verdict_of_adapter, verdict_of_pair

__all__ = ["exit_code_of"]


def exit_code_of(found: Workflow) -> int:
    """0 it serves, 1 worth another try, 2 bad input, 3 a gate failed or the rollout was rolled back."""
    if found.succeeded:
        return OK
    adapter, deployment = found.adapter, found.deployment
    if found.state is WorkflowState.CANCELLED:
        return INFRASTRUCTURE
    if found.reason == Reason.ROLLED_BACK:
        return GATE
    if adapter is not None and (found.reason, found.message) == (adapter.reason, adapter.message):
        return verdict_of_adapter(adapter.raw).exit_code or INFRASTRUCTURE
    if adapter is not None and deployment is not None and deployment.workflow_id != found.id:
        # A later workflow feeds the deployment: its state says nothing about this one, its history does.
        ended = next((one.result for one in deployment.history if one.adapter == adapter.name), "")
        return GATE if ended == "RolledBack" else INFRASTRUCTURE
    return verdict_of_pair(_raw(deployment), _raw(adapter)).exit_code or INFRASTRUCTURE


def _raw(resource: Resource | None) -> Mapping[str, Any] | None:
    return None if resource is None else resource.raw

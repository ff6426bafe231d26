"""The exit code of a workflow: 0 it serves, 1 worth another try, 2 bad input, 3 a gate failed or it was rolled back."""

from typing import Any

import pytest

from lora_client.adapter import Adapter
from lora_client.deployment import Deployment
from lora_client.names import ANNOTATION_WORKFLOW_DEPLOYMENT, LABEL_CANCELLED, LABEL_WORKFLOW
from lora_client.workflow import state_of
from lora_integration_tools.exit_codes import exit_code_of
from tests.client.objects import adapter, conditions, deployment, finished, version

Json = dict[str, Any]
ID, LATER = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "0d5a1c9e-5f0e-4d6e-9a37-3c1d5b8f2a11"


def seen(obj: Json, *, phase: str, reason: str, stalled: bool, message: str, **status: Any) -> Json:
    obj["metadata"] |= {"namespace": "finance", "generation": 1}
    ready = "True" if reason in {"Ready", "Stable"} else "False"
    told = conditions(ready=ready, reason=reason, message=message, stalled=stalled)
    obj["status"] = {"observedGeneration": 1, "phase": phase, "conditions": told, **status}
    return obj


def build(phase: str = "Ready", reason: str = "Ready", *, stalled: bool = False, **labels: str) -> Json:
    obj = adapter(labels={LABEL_WORKFLOW: ID, **labels})
    obj["metadata"]["annotations"] = {ANNOTATION_WORKFLOW_DEPLOYMENT: "fin"}
    return seen(obj, phase=phase, reason=reason, stalled=stalled, message="of the build")


def rollout(
    phase: str, reason: str, *, stalled: bool = False, workflow: str = ID, spec: Json | None = None, **more: Any
) -> Json:
    obj = deployment(labels={LABEL_WORKFLOW: workflow}, **(spec or {}))
    return seen(obj, phase=phase, reason=reason, stalled=stalled, message="of the rollout", **more)


WAITS = rollout("Pending", "AdapterNotReady")
GIVEN_UP = rollout("Aborted", "Aborted", abort={"reason": "PodFailed", "message": "no such layer"})

TABLE = [
    pytest.param(build(), rollout("Stable", "Stable", stable=version("a")), 0, id="what serves is 0"),
    pytest.param(build("Failed", "WrongBase", stalled=True), WAITS, 2, id="a refused merge is 2"),
    pytest.param(
        build("Failed", "WrongBase", stalled=True), GIVEN_UP, 2, id="a refused merge is 2 after an older rollback too"
    ),
    pytest.param(build("Pending", "NotSupportedYet", stalled=True), WAITS, 2, id="a field that is not built yet is 2"),
    pytest.param(build("Failed", "RetriesSpent", stalled=True), WAITS, 1, id="retries that are spent are 1"),
    pytest.param(build("Rejected", "GatesFailed", stalled=True), WAITS, 3, id="a failed gate is 3"),
    pytest.param(build("Rejected", "GatesFailed", stalled=True), None, 3, id="a failed gate without a deployment is 3"),
    pytest.param(build(), GIVEN_UP, 3, id="a rollout that was given up is 3"),
    pytest.param(
        build(),
        rollout("Stable", "Held", stable=version("old"), heldRevision="new"),
        3,
        id="a rollout from which somebody went back is 3",
    ),
    pytest.param(
        build(), rollout("Pending", "NotSupportedYet", stalled=True), 2, id="a strategy that is not built yet is 2"
    ),
    pytest.param(
        build("Rejected", "GatesFailed", stalled=True),
        rollout("Preparing", "Forbidden", stalled=True, spec={"forceDeploy": True}),
        1,
        id="a forced rollout is judged by the rollout",
    ),
    pytest.param(build(**{LABEL_CANCELLED: "true"}), WAITS, 1, id="a cancelled workflow is 1"),
    pytest.param(build(), None, 1, id="a deployment that was deleted is 1"),
    pytest.param(
        build(), rollout("Stable", "Stable", workflow=LATER), 1, id="one that a later workflow took over is 1"
    ),
    pytest.param(
        build(),
        rollout("Stable", "Stable", workflow=LATER, history=[finished("a", result="RolledBack")]),
        3,
        id="one that was rolled back before a later workflow took over is 3",
    ),
]


@pytest.mark.parametrize(("a", "d", "code"), TABLE)
def test_the_exit_code(a: Json, d: Json | None, code: int) -> None:
    found = state_of(ID, adapter=Adapter(a), deployment=Deployment(d) if d else None)
    assert found.state.final
    assert exit_code_of(found) == code

"""The end of a LoRAAdapter whose artifact goes with it: a Job removes the directory once nobody serves it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from lora_operator.api.conditions import merge_conditions
from lora_operator.api.kinds import JOB
from lora_operator.api.names import canonical_hash
from lora_operator.api.reasons import Reason
from lora_operator.core.adapter.draft import Draft
from lora_operator.core.adapter.observed import Observed
from lora_operator.core.adapter.stages import artifact_path
from lora_operator.core.build.job import build_delete_job
from lora_operator.core.plan import Create, Delete, Plan, SetFinalizer

__all__ = ["decide_deletion"]


def decide_deletion(observed: Observed, now: datetime) -> Plan:
    """Only reached with our finalizer: the artifact goes once nobody serves it."""
    adapter = observed.adapter
    if not observed.finalizer_held:
        return Plan(reason=Reason.DELETING)
    artifact: Mapping[str, Any] = adapter.status.get("artifact", {})
    if not artifact.get("uri"):
        return Plan(reason=Reason.DELETING, effects=(SetFinalizer(present=False),))
    draft = Draft(status=dict(adapter.status), now=now)
    if observed.in_use_by:
        message = f"LoRADeployment {observed.in_use_by[0]} still names this artifact; point it elsewhere or delete it"
        draft.not_ready("Ready", Reason.ARTIFACT_IN_USE, message, stalled=False)
        draft.requeue_at = now + timedelta(seconds=30)
        return _deletion_plan(observed, draft)
    name = f"{adapter.name}-d-{canonical_hash([adapter.uid, artifact['digest']], digits=8)}-1"
    view = observed.jobs.get(name)
    if view is not None and view.succeeded:
        return Plan(reason=Reason.DELETING, effects=(SetFinalizer(present=False),))
    draft.not_ready("Ready", Reason.DELETING, f"Job {name} removes the artifact", stalled=False)
    if view is None:
        job = build_delete_job(adapter, name=name, artifact_path=artifact_path(artifact), settings=observed.settings)
        draft.effects.append(Create(JOB, job))
    elif view.finished:
        draft.effects.append(Delete(JOB, adapter.namespace, view.name, view.uid))
        draft.requeue_at = now + timedelta(seconds=30)
    return _deletion_plan(observed, draft)


def _deletion_plan(observed: Observed, draft: Draft) -> Plan:
    status = draft.status
    status["conditions"] = merge_conditions(
        observed.adapter.status.get("conditions", []),
        draft.conditions.values(),
        generation=observed.adapter.generation,
        now=draft.now,
    )
    status["phase"] = observed.adapter.status.get("phase", "Pending")
    ready = draft.conditions["Ready"]
    return Plan(
        reason=str(ready.reason),
        message=ready.message,
        status=status,
        effects=tuple(draft.effects),
        requeue_at=draft.requeue_at,
    )

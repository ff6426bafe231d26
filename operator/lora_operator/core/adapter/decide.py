"""One step of a LoRAAdapter toward a validated artifact. Pure: a snapshot in, a plan out.

    Pending ─► Resolving ─► Merging ─► Validating ─► Ready
                  │            │            └► Rejected (gates failed)
                  └────────────┴► Failed (refused input, retries spent)         Suspended at any time

Order matters: deletion before everything, a person's request before a stale failure, the merge before the validation.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lora_operator.api.adapter import Retain
from lora_operator.api.conditions import merge_conditions, timestamp
from lora_operator.core.adapter.attempts import RETRY_ANNOTATION
from lora_operator.core.adapter.deletion import decide_deletion
from lora_operator.core.adapter.draft import Draft
from lora_operator.core.adapter.effective import effective_validation
from lora_operator.core.adapter.observed import Observed
from lora_operator.core.adapter.obstacles import claims, foreign, suspended, unsupported
from lora_operator.core.adapter.stages import merge, validate
from lora_operator.core.plan import Plan, SetFinalizer

__all__ = ["decide"]

STAGES = ("merge", "validate")
TERMINAL = {"Refused", "Stalled", "GatesFailed"}


def decide(observed: Observed, now: datetime) -> Plan:
    """What to record and what to do now."""
    adapter = observed.adapter
    if adapter.deleting:
        return decide_deletion(observed, now)
    draft = Draft(status={**adapter.status, "jobs": dict(adapter.status.get("jobs", {}))}, now=now)
    _take_requests(observed, draft)
    for rule in (suspended, unsupported, foreign, claims, merge, validate):
        if rule(observed, draft):
            break
    return _plan(observed, draft)


def _take_requests(observed: Observed, draft: Draft) -> None:
    """`loraops.dev/retry` with a new value: one more attempt of what failed."""
    value = observed.adapter.annotations.get(RETRY_ANNOTATION)
    requests: Mapping[str, Any] = observed.adapter.status.get("lastRequests", {})
    if value is None or requests.get("retry", {}).get("value") == value:
        return
    result = "Ignored"
    for stage in STAGES:
        record = draft.status["jobs"].get(stage)
        if record and record.get("result") in {*TERMINAL, "Retry"}:
            draft.status["jobs"][stage] = {**record, "result": "Retry", "nextAttemptAt": timestamp(draft.now)}
            result = "Done"
    entry = {"value": value, "time": timestamp(draft.now), "result": result}
    draft.status["lastRequests"] = {**requests, "retry": entry}


def _plan(observed: Observed, draft: Draft) -> Plan:
    adapter = observed.adapter
    status = draft.status
    status["observedGeneration"] = adapter.generation
    status["phase"] = draft.phase
    status["effective"] = {"validation": effective_validation(adapter, defaults=observed.defaults).to_json()}
    status["conditions"] = merge_conditions(
        adapter.status.get("conditions", []), draft.conditions.values(), generation=adapter.generation, now=draft.now
    )
    effects = draft.effects
    wants_finalizer = adapter.retain is Retain.DELETE
    if wants_finalizer != observed.finalizer_held:
        effects = [SetFinalizer(present=wants_finalizer), *effects]
    ready = draft.conditions.get("Ready")
    return Plan(
        reason=str(ready.reason) if ready else draft.phase,
        message=ready.message if ready else "",
        status=status,
        effects=tuple(effects),
        notes=tuple(draft.notes),
        requeue_at=draft.requeue_at,
    )

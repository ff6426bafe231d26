"""One step of a LoRAAdapter toward a validated artifact. Pure: a snapshot in, a plan out.

    Pending ─► Resolving ─► Merging ─► Validating ─► Ready
                  │            │            └► Rejected (gates failed)
                  └────────────┴► Failed (refused input, retries spent)         Suspended at any time

Order matters: deletion before everything, a person's request before a stale failure, the merge before the validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from lora_operator.api.adapter import Retain, ValidationMode
from lora_operator.api.conditions import Condition, merge_conditions, timestamp
from lora_operator.api.kinds import JOB
from lora_operator.api.names import GROUP, canonical_hash
from lora_operator.api.reasons import Reason
from lora_operator.core.adapter.attempts import (
    Attempt,
    first_attempt,
    job_settings_changed,
    next_attempt,
    read_attempt,
    stage_key,
)
from lora_operator.core.adapter.effective import effective_validation
from lora_operator.core.adapter.job_outcome import Outcome, outcome_of
from lora_operator.core.adapter.job_view import JobView
from lora_operator.core.adapter.observed import Observed
from lora_operator.core.adapter.supported import first_unsupported
from lora_operator.core.build.job import build_delete_job, build_merge_job, build_validate_job
from lora_operator.core.plan import Create, Delete, Effect, Note, Plan, SetFinalizer

__all__ = ["decide"]

RETRY_ANNOTATION = f"{GROUP}/retry"
SLOT_WAIT_SECONDS = 5
CLAIM_WAIT_SECONDS = 10
STAGES = ("merge", "validate")
TERMINAL = {"Refused", "Stalled", "GatesFailed"}


@dataclass
class _Draft:
    """The status being built up; written once, at the end."""

    status: dict[str, Any]
    now: datetime
    phase: str = "Pending"
    conditions: dict[str, Condition] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    requeue_at: datetime | None = None

    def set(self, type: str, status: Any, reason: str, message: str = "") -> None:  # noqa: A002 (the field's name)
        """One condition."""
        self.conditions[type] = Condition(type, status, reason, message)

    def not_ready(self, phase: str, reason: str, message: str, *, stalled: bool) -> None:
        """Ready=False with its twins Reconciling and Stalled."""
        self.phase = phase
        self.set("Ready", "False", reason, message)
        self.set("Reconciling", "False" if stalled else "True", reason, message)
        self.set("Stalled", "True" if stalled else "False", reason, message if stalled else "")


def decide(observed: Observed, now: datetime) -> Plan:
    """What to record and what to do now."""
    adapter = observed.adapter
    if adapter.deleting:
        return _decide_deletion(observed, now)
    draft = _Draft(status={**adapter.status, "jobs": dict(adapter.status.get("jobs", {}))}, now=now)
    _take_requests(observed, draft)
    for rule in (_suspended, _unsupported, _foreign, _claims, _merge, _validate):
        if rule(observed, draft):
            break
    return _plan(observed, draft)


def _take_requests(observed: Observed, draft: _Draft) -> None:
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


def _suspended(observed: Observed, draft: _Draft) -> bool:
    if not observed.adapter.suspend:
        return False
    for view in observed.jobs.values():
        if not view.finished:
            draft.effects.append(Delete(JOB, observed.adapter.namespace, view.name, view.uid))
    draft.not_ready("Suspended", Reason.SUSPENDED, "spec.suspend is true; set it to false to go on", stalled=False)
    draft.set("Reconciling", "False", Reason.SUSPENDED)
    return True


def _unsupported(observed: Observed, draft: _Draft) -> bool:
    problem = first_unsupported(observed.adapter)
    if problem is None:
        return False
    draft.not_ready("Failed", problem.reason, str(problem), stalled=True)
    return True


def _foreign(observed: Observed, draft: _Draft) -> bool:
    names = {record.get("name") for record in draft.status["jobs"].values()} & observed.foreign
    if not names:
        return False
    message = (
        f"the Job {min(map(str, names))} exists and belongs to somebody else; delete it or rename this LoRAAdapter"
    )
    draft.not_ready("Pending", Reason.NAME_TAKEN, message, stalled=True)
    return True


def _claims(observed: Observed, draft: _Draft) -> bool:
    missing = sorted(name for name, claim in observed.claims.items() if claim is None)
    if missing:
        message = f"PersistentVolumeClaim {missing[0]} is not in namespace {observed.adapter.namespace}; create it or correct claimName"
        draft.not_ready("Pending", Reason.CLAIM_NOT_FOUND, message, stalled=False)
        draft.set("SourceResolved", "False", Reason.CLAIM_NOT_FOUND, message)
        draft.requeue_at = draft.now + timedelta(seconds=CLAIM_WAIT_SECONDS)  # claims are not watched
        return True
    single = sorted(
        name for name, claim in observed.claims.items() if claim and "ReadWriteOncePod" in claim.access_modes
    )
    if single:
        message = f"claim {single[0]} is ReadWriteOncePod, so Jobs and serving pods cannot share it; use ReadWriteMany or ReadWriteOnce"
        draft.not_ready("Failed", Reason.VOLUME_NOT_SHAREABLE, message, stalled=True)
        return True
    return False


def _merge(observed: Observed, draft: _Draft) -> bool:
    """True while there is no artifact of this recipe."""
    adapter = observed.adapter
    key = stage_key(adapter, stage="merge")
    attempt = _current(observed, draft, stage="merge", key=key)
    if attempt is None:
        attempt = first_attempt(adapter, stage="merge", key=key, memory=None)
        if _wait_for_slot(observed, draft):
            return True
    if attempt.result == "Succeeded" and adapter.status.get("artifact", {}).get("digest"):
        return False
    view = observed.jobs.get(attempt.name)
    if view is None and attempt.result is None and not _recorded(observed, attempt) and _wait_for_slot(observed, draft):
        return True
    return _follow(observed, draft, attempt)


def _validate(observed: Observed, draft: _Draft) -> bool:
    adapter = observed.adapter
    digest = str(draft.status["artifact"]["digest"])
    if adapter.validation.mode is ValidationMode.NONE:
        draft.phase = "Ready"
        draft.set("Validated", "Unknown", Reason.VALIDATION_DISABLED, "validation.mode is None: nothing was measured")
        _ready(draft, Reason.VALIDATION_DISABLED, "the artifact may be served; it was not validated")
        return True
    key = stage_key(adapter, stage="validate", artifact_digest=digest)
    attempt = _current(observed, draft, stage="validate", key=key)
    if attempt is None:
        memory = adapter.status.get("jobs", {}).get("merge", {}).get("validateMemory")
        attempt = first_attempt(adapter, stage="validate", key=key, memory=memory)
        draft.status.pop("validation", None)
    if attempt.result in {"Succeeded", "GatesFailed"} and "validation" in draft.status:
        _judge(observed, draft, attempt)
        return True
    return _follow(observed, draft, attempt)


def _current(observed: Observed, draft: _Draft, *, stage: str, key: str) -> Attempt | None:
    """The attempt that counts now: the recorded one, or the next when its time has come or a person asked."""
    attempt = read_attempt(draft.status["jobs"], stage=stage, key=key)
    if attempt is None or attempt.result is None or attempt.result == "Succeeded":
        return attempt
    if attempt.result == "GatesFailed" and not job_settings_changed(observed.adapter, attempt):
        return attempt
    if job_settings_changed(observed.adapter, attempt):
        return next_attempt(observed.adapter, attempt)
    if attempt.result == "Retry" and attempt.next_at is not None and draft.now >= attempt.next_at:
        return next_attempt(observed.adapter, attempt)
    return attempt


def _recorded(observed: Observed, attempt: Attempt) -> bool:
    """Whether this very attempt was announced in a status already written: then its slot is ours."""
    return bool(attempt.name == observed.adapter.status.get("jobs", {}).get(attempt.stage, {}).get("name", ""))


def _wait_for_slot(observed: Observed, draft: _Draft) -> bool:
    if observed.running_merges < observed.max_concurrent_merges:
        return False
    message = f"{observed.running_merges} merge Job(s) run in this node pool and max_concurrent_merges is {observed.max_concurrent_merges}"
    draft.not_ready("Pending", Reason.WAITING_FOR_SLOT, message, stalled=False)
    draft.requeue_at = draft.now + timedelta(seconds=SLOT_WAIT_SECONDS)
    return True


def _follow(observed: Observed, draft: _Draft, attempt: Attempt) -> bool:
    """Starts the attempt's Job, tells how it is doing, or draws the consequence of its end. Always the last word of a reconcile."""
    draft.status["jobs"][attempt.stage] = {**draft.status["jobs"].get(attempt.stage, {}), **attempt.to_json()}
    if attempt.result is None:
        for stale in ("result", "reason", "message", "nextAttemptAt"):
            draft.status["jobs"][attempt.stage].pop(stale, None)
    view = observed.jobs.get(attempt.name)
    if attempt.result is not None:
        _tell_end(draft, attempt)
    elif view is None:
        draft.effects.append(Create(JOB, _manifest(observed, draft, attempt)))
        if not _recorded(observed, attempt):
            draft.notes.append(
                Note("Normal", f"{attempt.stage.capitalize()}Started", f"Job {attempt.name}, attempt {attempt.number}")
            )
        _tell_progress(draft, attempt, None)
    elif view.finished:
        _conclude(observed, draft, attempt, view)
    else:
        _note_sources(draft, view)
        _tell_progress(draft, attempt, view)
    return True


def _manifest(observed: Observed, draft: _Draft, attempt: Attempt) -> dict[str, Any]:
    adapter = observed.adapter
    if attempt.stage == "merge":
        return build_merge_job(adapter, name=attempt.name, memory=attempt.memory, settings=observed.settings)
    return build_validate_job(
        adapter,
        name=attempt.name,
        memory=attempt.memory,
        artifact_path=_artifact_path(draft.status["artifact"]),
        validation=effective_validation(adapter, defaults=observed.defaults),
        validation_id=f"v-{attempt.key}",
        settings=observed.settings,
    )


def _artifact_path(artifact: Mapping[str, Any]) -> str:
    """Relative to the store claim's root: the part of pvc://CLAIM/PATH after the claim."""
    return str(artifact["uri"]).removeprefix("pvc://").split("/", 1)[1]


def _tell_progress(draft: _Draft, attempt: Attempt, view: JobView | None) -> None:
    merging = attempt.stage == "merge"
    if view is not None and view.image_problem:
        message = f"{view.image_problem}; correct the image or its pull secret"
        draft.not_ready(_working_phase(attempt, view), Reason.IMAGE_NOT_AVAILABLE, message, stalled=False)
    elif view is not None and view.unschedulable:
        message = f"no node takes the {attempt.stage} pod: {view.unschedulable}"
        draft.not_ready(_working_phase(attempt, view), Reason.POD_UNSCHEDULABLE, message, stalled=False)
    else:
        phase = _working_phase(attempt, view)
        reason = {"Resolving": Reason.RESOLVING, "Merging": Reason.MERGING, "Validating": Reason.VALIDATING}[phase]
        again = f", attempt {attempt.number}" if attempt.number > 1 else ""
        draft.not_ready(phase, reason, f"Job {attempt.name}{again}", stalled=False)
    if merging:
        draft.set("Merged", "Unknown", Reason.MERGING)
        draft.set("Validated", "Unknown", Reason.PENDING)
    else:
        draft.set("Validated", "Unknown", Reason.VALIDATING)


def _working_phase(attempt: Attempt, view: JobView | None) -> str:
    if attempt.stage == "validate":
        return "Validating"
    return "Merging" if view is not None and "fetch" in view.ends and view.ends["fetch"].exit_code == 0 else "Resolving"


def _note_sources(draft: _Draft, view: JobView) -> None:
    """The fetch step's message: digests found, memory the next attempts should ask for."""
    end = view.ends.get("fetch")
    if end is None or end.message is None or end.exit_code != 0:
        return
    names = [f"{source['name']} {source['digest'][:19]}" for source in end.message.get("sources", [])]
    draft.set("SourceResolved", "True", Reason.SOURCES_RESOLVED, ", ".join(names))
    figures = end.message.get("figures", {})
    record = draft.status["jobs"]["merge"]
    if figures.get("validateMemoryBytes"):
        record["validateMemory"] = int(figures["validateMemoryBytes"])
    if figures.get("mergeMemoryBytes"):
        record["mergeMemory"] = int(figures["mergeMemoryBytes"])


def _conclude(observed: Observed, draft: _Draft, attempt: Attempt, view: JobView) -> None:
    if attempt.stage == "merge":
        _note_sources(draft, view)
    outcome = outcome_of(view, stage="merge" if attempt.stage == "merge" else "validate")
    record = draft.status["jobs"][attempt.stage]
    ended = attempt.ended(outcome, now=draft.now)
    figure = record.get("mergeMemory") if attempt.stage == "merge" else None
    if ended.result == "Retry" and figure:
        ended = replace(ended, memory=max(ended.memory, int(figure)))
    draft.status["jobs"][attempt.stage] = {**record, **ended.to_json()}
    if outcome.kind in {"succeeded", "gates-failed"}:
        _record_result(observed, draft, ended, outcome)
        return
    draft.notes.append(Note("Warning", str(outcome.reason), outcome.message))
    _tell_end(draft, ended)
    draft.requeue_at = ended.next_at


def _record_result(observed: Observed, draft: _Draft, attempt: Attempt, outcome: Outcome) -> None:
    result = outcome.result
    if attempt.stage == "merge":
        artifact, figures = dict(result.get("artifact", {})), result.get("figures", {})
        claim = observed.adapter.store.claim
        uri = f"pvc://{claim}/{artifact.pop('path', '')}"
        draft.status["buildHash"] = artifact.pop("buildHash", "")
        draft.status["artifact"] = {**artifact, "uri": uri}
        draft.status["merge"] = {
            key: figures[key]
            for key in ("seconds", "tensorsMerged", "tensorsCopied", "deltaRetentionMin", "peakMemoryBytes")
            if figures.get(key) is not None
        }
        draft.set("Merged", "True", Reason.MERGED, f"{artifact.get('digest')} at {uri}")
        draft.notes.append(Note("Normal", Reason.MERGED, outcome.message or f"published {artifact.get('digest')}"))
        draft.not_ready("Validating", Reason.VALIDATING, "merged; validation follows", stalled=False)
        draft.set("Validated", "Unknown", Reason.PENDING)
        draft.requeue_at = draft.now
        return
    validation = dict(result.get("validation", {}))
    validation["mode"] = str(observed.adapter.validation.mode)
    validation["reportUri"] = f"{draft.status['artifact']['uri']}/validation/v-{attempt.key}.json"
    validation.pop("reportPath", None)
    draft.status["validation"] = validation
    _judge(observed, draft, attempt)
    verdict = draft.conditions["Validated"]
    kind: Literal["Normal", "Warning"] = "Normal" if attempt.result == "Succeeded" else "Warning"
    draft.notes.append(Note(kind, str(verdict.reason), verdict.message))


def _judge(observed: Observed, draft: _Draft, attempt: Attempt) -> None:
    """Ready, Ready with a warning, or Rejected."""
    validation = draft.status["validation"]
    summary = f"score {validation.get('overallScore')}, grade {validation.get('grade')}"
    draft.set("Merged", "True", Reason.MERGED, f"{draft.status['artifact']['digest']}")
    failed = [gate for gate in validation.get("gates", []) if gate.get("status") in {"FAIL", "INCONCLUSIVE"}]
    words = "; ".join(_gate_words(gate) for gate in failed) or summary
    if failed and (attempt.result == "Succeeded" or _only_warns(observed, failed)):
        draft.set("Validated", "False", Reason.QUALITY_WARNING, words)
        warned = f"served although a gate failed, because blockOnPoorQuality is false: {words}"
        _ready(draft, Reason.QUALITY_WARNING, warned)
        return
    if attempt.result == "Succeeded":
        draft.set("Validated", "True", Reason.VALIDATED, summary)
        _ready(draft, Reason.READY, f"{draft.status['artifact']['digest'][:19]} may be served; {summary}")
        return
    draft.set("Validated", "False", Reason.GATES_FAILED, words)
    draft.not_ready("Rejected", Reason.GATES_FAILED, words, stalled=True)


def _only_warns(observed: Observed, failed: Sequence[Mapping[str, Any]]) -> bool:
    """For results of Jobs that were not told --warn-on-poor-quality: those of an earlier operator, or before the setting changed."""
    block = effective_validation(observed.adapter, defaults=observed.defaults).block_on_poor_quality
    return not block and all(gate.get("kind") != "hard" and gate.get("name") in {"score", "safety"} for gate in failed)


def _gate_words(gate: Mapping[str, Any]) -> str:
    return f"gate {gate.get('name')} {gate.get('status')}: observed {gate.get('observed')}, threshold {gate.get('threshold')}"


def _ready(draft: _Draft, reason: str, message: str) -> None:
    draft.phase = "Ready"
    draft.set("Ready", "True", reason, message)
    draft.set("Reconciling", "False", reason)
    draft.set("Stalled", "False", reason)


def _tell_end(draft: _Draft, attempt: Attempt) -> None:
    """An attempt that ended without what we wanted, in words."""
    if attempt.stage == "merge":
        resolved = draft.conditions.get("SourceResolved") or attempt.reason == Reason.OUT_OF_MEMORY
        draft.set("Merged", "False", attempt.reason, attempt.message)
        if not resolved and attempt.result == "Refused":
            draft.set("SourceResolved", "False", attempt.reason, attempt.message)
    else:
        draft.set("Validated", "Unknown", attempt.reason, attempt.message)
    if attempt.result == "Retry" and attempt.next_at is not None:
        message = f"{attempt.message}; attempt {attempt.number + 1} at {timestamp(attempt.next_at)}"
        draft.not_ready("Merging" if attempt.stage == "merge" else "Validating", attempt.reason, message, stalled=False)
        draft.requeue_at = attempt.next_at
    elif attempt.result == "Retry":
        message = (
            f"{attempt.number} attempts failed, the last: {attempt.message}; mend it, then annotate {RETRY_ANNOTATION}"
        )
        draft.not_ready("Failed", Reason.RETRIES_SPENT, message, stalled=True)
    else:
        draft.not_ready("Failed", attempt.reason, attempt.message, stalled=True)


def _plan(observed: Observed, draft: _Draft) -> Plan:
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


def _decide_deletion(observed: Observed, now: datetime) -> Plan:
    """Only reached with our finalizer: the artifact goes once nobody serves it."""
    adapter = observed.adapter
    if not observed.finalizer_held:
        return Plan(reason=Reason.DELETING)
    artifact: Mapping[str, Any] = adapter.status.get("artifact", {})
    if not artifact.get("uri"):
        return Plan(reason=Reason.DELETING, effects=(SetFinalizer(present=False),))
    draft = _Draft(status=dict(adapter.status), now=now)
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
        job = build_delete_job(adapter, name=name, artifact_path=_artifact_path(artifact), settings=observed.settings)
        draft.effects.append(Create(JOB, job))
    elif view.finished:
        draft.effects.append(Delete(JOB, adapter.namespace, view.name, view.uid))
        draft.requeue_at = now + timedelta(seconds=30)
    return _deletion_plan(observed, draft)


def _deletion_plan(observed: Observed, draft: _Draft) -> Plan:
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

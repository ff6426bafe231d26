"""Merge and validate, one Job per attempt: start it, tell how it is doing, draw the consequence of its end.

The merge comes first; the validation needs its artifact. Both are followed the same way.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from lora_operator.api.adapter import ValidationMode
from lora_operator.api.conditions import timestamp
from lora_operator.api.kinds import JOB
from lora_operator.api.reasons import Reason
from lora_operator.core.adapter.attempts import (
    RETRY_ANNOTATION,
    Attempt,
    first_attempt,
    job_settings_changed,
    next_attempt,
    read_attempt,
    stage_key,
)
from lora_operator.core.adapter.draft import Draft
from lora_operator.core.adapter.effective import effective_validation
from lora_operator.core.adapter.job_outcome import Outcome, outcome_of
from lora_operator.core.adapter.job_view import JobView
from lora_operator.core.adapter.observed import Observed
from lora_operator.core.adapter.suites import missing_suite
from lora_operator.core.adapter.verdict import judge, ready
from lora_operator.core.build.job import build_merge_job, build_validate_job
from lora_operator.core.plan import Create, Note

__all__ = ["artifact_path", "merge", "validate"]

SLOT_WAIT_SECONDS = 5
SUITE_WAIT_SECONDS = 10


def merge(observed: Observed, draft: Draft) -> bool:
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


def validate(observed: Observed, draft: Draft) -> bool:
    adapter = observed.adapter
    digest = str(draft.status["artifact"]["digest"])
    if adapter.validation.mode is ValidationMode.NONE:
        draft.phase = "Ready"
        draft.set("Validated", "Unknown", Reason.VALIDATION_DISABLED, "validation.mode is None: nothing was measured")
        ready(draft, Reason.VALIDATION_DISABLED, "the artifact may be served; it was not validated")
        return True
    key = stage_key(adapter, stage="validate", artifact_digest=digest)
    attempt = _current(observed, draft, stage="validate", key=key)
    if attempt is None:
        memory = adapter.status.get("jobs", {}).get("merge", {}).get("validateMemory")
        attempt = first_attempt(adapter, stage="validate", key=key, memory=memory)
        draft.status.pop("validation", None)
    if attempt.result in {"Succeeded", "GatesFailed"} and "validation" in draft.status:
        judge(observed, draft, attempt)
        return True
    missing = missing_suite(observed)
    if missing and attempt.result == "Refused" and attempt.reason == Reason.SUITE_NOT_FOUND:
        # it went away between our look and the Job's: the next attempt waits for it
        attempt = next_attempt(adapter, attempt)
    if missing and attempt.result is None and attempt.name not in observed.jobs:
        return _await_suite(draft, attempt, missing)
    return _follow(observed, draft, attempt)


def _await_suite(draft: Draft, attempt: Attempt, missing: str) -> bool:
    """Recorded, but not started: its Job would only be refused."""
    _record(draft, attempt)
    draft.set("Validated", "Unknown", Reason.SUITE_NOT_FOUND, missing)
    draft.not_ready("Validating", Reason.SUITE_NOT_FOUND, missing, stalled=False)
    draft.requeue_at = draft.now + timedelta(seconds=SUITE_WAIT_SECONDS)  # ConfigMaps are not watched
    return True


def _current(observed: Observed, draft: Draft, *, stage: str, key: str) -> Attempt | None:
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


def _wait_for_slot(observed: Observed, draft: Draft) -> bool:
    if observed.running_merges < observed.max_concurrent_merges:
        return False
    message = f"{observed.running_merges} merge Job(s) run in this node pool and max_concurrent_merges is {observed.max_concurrent_merges}"
    draft.not_ready("Pending", Reason.WAITING_FOR_SLOT, message, stalled=False)
    draft.requeue_at = draft.now + timedelta(seconds=SLOT_WAIT_SECONDS)
    return True


def _follow(observed: Observed, draft: Draft, attempt: Attempt) -> bool:
    """Starts the attempt's Job, tells how it is doing, or draws the consequence of its end. Always the last word of a reconcile."""
    _record(draft, attempt)
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


def _record(draft: Draft, attempt: Attempt) -> None:
    """The attempt as status.jobs shows it; what fetch found out stays beside it."""
    record = {**draft.status["jobs"].get(attempt.stage, {}), **attempt.to_json()}
    if attempt.result is None:
        for stale in ("result", "reason", "message", "nextAttemptAt"):
            record.pop(stale, None)
    draft.status["jobs"][attempt.stage] = record


def _manifest(observed: Observed, draft: Draft, attempt: Attempt) -> dict[str, Any]:
    adapter = observed.adapter
    if attempt.stage == "merge":
        return build_merge_job(adapter, name=attempt.name, memory=attempt.memory, settings=observed.settings)
    return build_validate_job(
        adapter,
        name=attempt.name,
        memory=attempt.memory,
        artifact_path=artifact_path(draft.status["artifact"]),
        validation=effective_validation(adapter, defaults=observed.defaults),
        validation_id=f"v-{attempt.key}",
        settings=observed.settings,
    )


def artifact_path(artifact: Mapping[str, Any]) -> str:
    """Relative to the store claim's root: the part of pvc://CLAIM/PATH after the claim."""
    return str(artifact["uri"]).removeprefix("pvc://").split("/", 1)[1]


def _tell_progress(draft: Draft, attempt: Attempt, view: JobView | None) -> None:
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


def _note_sources(draft: Draft, view: JobView) -> None:
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


def _conclude(observed: Observed, draft: Draft, attempt: Attempt, view: JobView) -> None:
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


def _record_result(observed: Observed, draft: Draft, attempt: Attempt, outcome: Outcome) -> None:
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
    judge(observed, draft, attempt)
    verdict = draft.conditions["Validated"]
    kind: Literal["Normal", "Warning"] = "Normal" if attempt.result == "Succeeded" else "Warning"
    draft.notes.append(Note(kind, str(verdict.reason), verdict.message))


def _tell_end(draft: Draft, attempt: Attempt) -> None:
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

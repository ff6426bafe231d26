"""What an attempt's end means: done, refused, gates failed, or worth another attempt and with how much memory.

exit 0 + a readable message → Succeeded     exit 2 → Refused     exit 3 → GatesFailed
137 or OOMKilled → again with twice the memory     1, 143, eviction, lost pod → again as it was     deadline → a person
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lora_operator.api.reasons import Reason
from lora_operator.core.adapter.job_view import ContainerEnd, JobView

__all__ = ["Outcome", "outcome_of"]

KILLED = 137
REFUSED, GATE_FAILED = 2, 3


@dataclass(frozen=True)
class Outcome:
    """`kind` decides what happens next; reason and message go into the condition."""

    kind: Literal["succeeded", "refused", "gates-failed", "retry", "retry-with-more-memory", "stalled"]
    reason: str
    message: str
    result: Mapping[str, Any]


def outcome_of(view: JobView, *, stage: Literal["merge", "validate"]) -> Outcome:
    """The outcome of a finished Job."""
    end = _decisive_end(view, stage=stage)
    if view.failure_reason == "DeadlineExceeded":
        message = (
            f"the {stage} Job ran longer than its timeoutSeconds; raise job.{stage}.timeoutSeconds or look at its logs"
        )
        return Outcome("stalled", Reason.DEADLINE_EXCEEDED, message, {})
    if end is None:
        why = "its pod was evicted or lost" if view.disrupted or not view.pod_seen else "its pod ended without a word"
        return Outcome("retry", Reason.JOB_FAILED, f"the {stage} Job failed: {why}", {})
    if end.reason == "OOMKilled" or end.exit_code == KILLED:
        return Outcome(
            "retry-with-more-memory", Reason.OUT_OF_MEMORY, f"the {stage} Job was killed at its memory limit", {}
        )
    if view.succeeded and end.exit_code == 0:
        if end.message is None or end.message.get("outcome") != "Succeeded":
            message = f"the {stage} Job ended well but left no readable result; does the job image fit this operator?"
            return Outcome("stalled", Reason.BAD_RESULT, message, {})
        return Outcome(
            "succeeded", str(end.message.get("reason", "")), str(end.message.get("message", "")), end.message
        )
    return _failed(end, stage=stage)


def _failed(end: ContainerEnd, *, stage: str) -> Outcome:
    message = end.message or {}
    text = str(message.get("message") or _last_line(end.text) or f"exit code {end.exit_code}")
    if end.exit_code == REFUSED:
        return Outcome("refused", str(message.get("reason") or Reason.INVALID), text, message)
    if end.exit_code == GATE_FAILED and end.message is not None:
        return Outcome("gates-failed", Reason.GATES_FAILED, text, message)
    return Outcome("retry", str(message.get("reason") or Reason.JOB_FAILED), f"the {stage} Job failed: {text}", message)


def _decisive_end(view: JobView, *, stage: str) -> ContainerEnd | None:
    """The first container that failed; otherwise the main one."""
    for end in view.ends.values():
        if end.exit_code != 0:
            return end
    return view.ends.get(stage)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""

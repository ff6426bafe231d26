"""What a finished validation means for the adapter: Ready, Ready with a warning, or Rejected."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_operator.api.reasons import Reason
from lora_operator.core.adapter.attempts import Attempt
from lora_operator.core.adapter.draft import Draft
from lora_operator.core.adapter.effective import effective_validation
from lora_operator.core.adapter.observed import Observed

__all__ = ["judge", "ready"]


def judge(observed: Observed, draft: Draft, attempt: Attempt) -> None:
    """Ready, Ready with a warning, or Rejected."""
    validation = draft.status["validation"]
    summary = f"score {validation.get('overallScore')}, grade {validation.get('grade')}"
    draft.set("Merged", "True", Reason.MERGED, f"{draft.status['artifact']['digest']}")
    failed = [gate for gate in validation.get("gates", []) if gate.get("status") in {"FAIL", "INCONCLUSIVE"}]
    words = "; ".join(_gate_words(gate) for gate in failed) or summary
    if failed and (attempt.result == "Succeeded" or _only_warns(observed, failed)):
        draft.set("Validated", "False", Reason.QUALITY_WARNING, words)
        warned = f"served although a gate failed, because blockOnPoorQuality is false: {words}"
        ready(draft, Reason.QUALITY_WARNING, warned)
        return
    if attempt.result == "Succeeded":
        draft.set("Validated", "True", Reason.VALIDATED, summary)
        ready(draft, Reason.READY, f"{draft.status['artifact']['digest'][:19]} may be served; {summary}")
        return
    draft.set("Validated", "False", Reason.GATES_FAILED, words)
    draft.not_ready("Rejected", Reason.GATES_FAILED, words, stalled=True)


def _only_warns(observed: Observed, failed: Sequence[Mapping[str, Any]]) -> bool:
    """For results of Jobs that were not told --warn-on-poor-quality: those of an earlier operator, or before the setting changed."""
    block = effective_validation(observed.adapter, defaults=observed.defaults).block_on_poor_quality
    return not block and all(gate.get("kind") != "hard" and gate.get("name") in {"score", "safety"} for gate in failed)


def _gate_words(gate: Mapping[str, Any]) -> str:
    return f"gate {gate.get('name')} {gate.get('status')}: observed {gate.get('observed')}, threshold {gate.get('threshold')}"


def ready(draft: Draft, reason: str, message: str) -> None:
    draft.phase = "Ready"
    draft.set("Ready", "True", reason, message)
    draft.set("Reconciling", "False", reason)
    draft.set("Stalled", "False", reason)

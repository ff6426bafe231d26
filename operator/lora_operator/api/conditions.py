"""Kubernetes conditions: fixed types, a transition time that moves only when the status flips.

Pure: the caller passes the time. What is returned is the JSON list as it is stored in `status.conditions`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from lora_operator.api.reasons import Reason

__all__ = ["Condition", "Status", "condition_of", "merge_conditions", "timestamp"]

MAX_MESSAGE = 1024
Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Condition:
    """What is known of one aspect. `reason` may come from a Job's termination message, so it is a plain word."""

    type: str
    status: Status
    reason: Reason | str
    message: str = ""


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with seconds, as the API server stores it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition_of(conditions: Iterable[Mapping[str, Any]], *, type: str) -> Mapping[str, Any] | None:  # noqa: A002 (the field's name)
    """The stored condition of that type, or None."""
    return next((c for c in conditions if c.get("type") == type), None)


def merge_conditions(
    stored: Sequence[Mapping[str, Any]], wanted: Iterable[Condition], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Stored conditions with `wanted` laid over them, sorted by type so that equal facts are equal bytes.

    A condition that is not wanted stays as it is: nobody unsays what was true at its observedGeneration.
    """
    merged = {str(c["type"]): dict(c) for c in stored}
    for condition in wanted:
        before = merged.get(condition.type)
        flipped = before is None or before.get("status") != condition.status
        merged[condition.type] = {
            "type": condition.type,
            "status": condition.status,
            "reason": str(condition.reason),
            "message": _clipped(condition.message),
            "observedGeneration": generation,
            "lastTransitionTime": timestamp(now) if flipped or before is None else before["lastTransitionTime"],
        }
    return [merged[key] for key in sorted(merged)]


def _clipped(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"

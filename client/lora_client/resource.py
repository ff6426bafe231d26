"""What both resources have in common as they are read: typed views over the stored object, which stays whole in `raw`.

A view says what the object says, nothing computed with a clock. Where the status speaks of an older spec than the stored
one (`current` is False), the operator has not looked yet and nothing may be concluded from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lora_client.names import LABEL_CANCELLED, LABEL_WORKFLOW

__all__ = ["Condition", "Resource", "moment"]


@dataclass(frozen=True)
class Condition:
    """One entry of `status.conditions`."""

    type: str
    status: str
    reason: str
    message: str
    since: str
    """RFC 3339: when status last flipped."""


@dataclass(frozen=True)
class Resource:
    """What a LoRAAdapter and a LoRADeployment have in common."""

    raw: Mapping[str, Any]

    @property
    def name(self) -> str:
        """metadata.name."""
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """metadata.namespace."""
        return str(self.raw["metadata"].get("namespace", ""))

    @property
    def uid(self) -> str:
        """metadata.uid."""
        return str(self.raw["metadata"].get("uid", ""))

    @property
    def created(self) -> datetime | None:
        """metadata.creationTimestamp."""
        return moment(self.raw["metadata"].get("creationTimestamp"))

    @property
    def deleting(self) -> bool:
        """A deletion is under way."""
        return "deletionTimestamp" in self.raw["metadata"]

    @property
    def labels(self) -> Mapping[str, str]:
        """metadata.labels."""
        return self.raw["metadata"].get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """metadata.annotations."""
        return self.raw["metadata"].get("annotations") or {}

    @property
    def spec(self) -> Mapping[str, Any]:
        """spec."""
        return self.raw.get("spec") or {}

    @property
    def status(self) -> Mapping[str, Any]:
        """status; empty until the operator looked for the first time."""
        return self.raw.get("status") or {}

    @property
    def current(self) -> bool:
        """The status is about the stored spec."""
        return bool(self.status.get("observedGeneration") == self.raw["metadata"].get("generation"))

    @property
    def phase(self) -> str:
        """status.phase; Pending before there is a status."""
        return str(self.status.get("phase") or "Pending")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """status.conditions."""
        return tuple(
            Condition(
                type=str(one.get("type", "")),
                status=str(one.get("status", "Unknown")),
                reason=str(one.get("reason", "")),
                message=str(one.get("message", "")),
                since=str(one.get("lastTransitionTime", "")),
            )
            for one in self.status.get("conditions") or ()
        )

    def condition(self, type: str) -> Condition | None:  # noqa: A002 (the field's name)
        """The condition of that type, or None."""
        return next((one for one in self.conditions if one.type == type), None)

    @property
    def ready(self) -> bool | None:
        """The Ready condition for the stored spec; None while nothing is known of it."""
        found = self.condition("Ready")
        if found is None or not self.current or found.status == "Unknown":
            return None
        return found.status == "True"

    @property
    def stalled(self) -> bool:
        """Only a person can help."""
        found = self.condition("Stalled")
        return self.current and found is not None and found.status == "True"

    @property
    def reason(self) -> str:
        """Reason of the Ready condition; empty while there is none."""
        found = self.condition("Ready")
        return "" if found is None else found.reason

    @property
    def message(self) -> str:
        """Message of the Ready condition: why, in words."""
        found = self.condition("Ready")
        return "" if found is None else found.message

    @property
    def workflow_id(self) -> str:
        """The workflow it belongs to; empty: none."""
        return self.labels.get(LABEL_WORKFLOW, "")

    @property
    def cancelled(self) -> bool:
        """Its workflow was cancelled."""
        return self.labels.get(LABEL_CANCELLED) == "true"


def moment(text: object) -> datetime | None:
    """A stored time; None where there is none."""
    return datetime.fromisoformat(str(text)) if text else None

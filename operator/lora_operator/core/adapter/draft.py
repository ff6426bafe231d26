"""The status that a decision builds up: written once, at the end."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lora_operator.api.conditions import Condition
from lora_operator.core.plan import Effect, Note

__all__ = ["Draft"]


@dataclass
class Draft:
    """Status, effects and notes so far."""

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

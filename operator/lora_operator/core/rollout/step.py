"""Arguments of a phase: the step that is being taken, why nothing moves, how long nothing served."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lora_operator.api.conditions import timestamp
from lora_operator.core.rollout.phase import Phase, Sub
from lora_operator.core.rollout.stored import compact, moment, stamp

__all__ = ["Downtime", "Pause", "Step"]


@dataclass(frozen=True)
class Step:
    """Arguments of the running phase. `started_at` is the start of the rollout, `index` counts from 0."""

    sub: Sub
    started_at: datetime
    deadline: datetime | None = None
    message: str = ""
    index: int | None = None
    of: int | None = None
    scale: int | None = None  # percent of spec.replicas that the candidate has pods for; None: all of them
    prefix: str = ""  # hash of the steps that were taken, the running one included
    forced: bool = False  # ABTest: requests that match reach the candidate, whatever the weights

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> "Step | None":
        """The stored one; None where there is none."""
        if not raw:
            return None
        return cls(
            sub=Sub(raw["sub"]),
            started_at=datetime.fromisoformat(raw["startedAt"]),
            deadline=moment(raw.get("deadline")),
            message=raw.get("message", ""),
            index=raw.get("index"),
            of=raw.get("of"),
            scale=raw.get("scale"),
            prefix=raw.get("prefix", ""),
            forced=raw.get("forced", False),
        )

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return compact(
            {
                "index": self.index,
                "of": self.of,
                "sub": str(self.sub),
                "startedAt": timestamp(self.started_at),
                "deadline": stamp(self.deadline),
                "message": self.message,
                "scale": self.scale,
                "prefix": self.prefix or None,
                "forced": self.forced or None,
            }
        )


@dataclass(frozen=True)
class Pause:
    """Why and since when nothing moves, and the phase that goes on afterwards."""

    reason: str
    since: datetime
    until: datetime | None = None
    phase: Phase | None = None  # None: nothing had begun

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> "Pause | None":
        """The stored one; None where there is none."""
        if not raw:
            return None
        phase = raw.get("phase")
        return cls(
            reason=raw["reason"],
            since=datetime.fromisoformat(raw["since"]),
            until=moment(raw.get("until")),
            phase=None if phase is None else Phase(phase),
        )

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return compact(
            {
                "reason": self.reason,
                "since": timestamp(self.since),
                "until": stamp(self.until),
                "phase": None if self.phase is None else str(self.phase),
            }
        )


@dataclass(frozen=True)
class Downtime:
    """Declared by Replace without a free GPU. `seconds` of the last one that is over; `since` while it lasts."""

    seconds: int = 0
    since: datetime | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> "Downtime":
        """The stored one; where there is none, no second of it."""
        raw = raw or {}
        return cls(seconds=raw.get("seconds", 0), since=moment(raw.get("since")))

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return compact({"seconds": self.seconds, "since": stamp(self.since)})

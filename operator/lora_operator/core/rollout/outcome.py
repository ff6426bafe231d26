"""What came of something: of a comparison, of a candidate that was given up, of a request, of a whole rollout."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lora_operator.api.conditions import timestamp
from lora_operator.core.analysis.verdict import Verdict
from lora_operator.core.rollout.stored import compact

__all__ = ["Abort", "Analysis", "HistoryEntry", "Request"]


@dataclass(frozen=True)
class Abort:
    """Why a candidate was given up, with what was seen."""

    revision: str
    reason: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> "Abort | None":
        """The stored one; None where there is none."""
        if not raw:
            return None
        return cls(
            revision=raw.get("revision", ""),
            reason=raw["reason"],
            message=raw.get("message", ""),
            evidence=raw.get("evidence") or {},
        )

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        parts = {"revision": self.revision, "reason": self.reason, "message": self.message}
        return parts | ({"evidence": dict(self.evidence)} if self.evidence else {})


@dataclass(frozen=True)
class Analysis:
    """What the comparison of candidate and stable said last. `metrics`: verdict and figures of each."""

    verdict: Verdict
    message: str = ""
    mismatch: str = ""  # how requests are split otherwise than declared; empty: they are not
    accepted: str = ""  # the stage in which somebody said that such a split is fine
    metrics: tuple[Mapping[str, Any], ...] = ()

    @property
    def evidence(self) -> Mapping[str, Any]:
        """Figures of what was found worse."""
        worse = (metric for metric in self.metrics if metric.get("verdict") == Verdict.DEGRADED)
        return next(worse, {})

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> "Analysis | None":
        """The stored one; None where there is none, or none that can be read."""
        if not raw or raw.get("verdict") not in list(Verdict):
            return None
        return cls(
            verdict=Verdict(raw["verdict"]),
            message=raw.get("message", ""),
            mismatch=raw.get("mismatch", ""),
            accepted=raw.get("accepted", ""),
            metrics=tuple(raw.get("metrics") or ()),
        )

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return compact(
            {
                "verdict": str(self.verdict),
                "message": self.message or None,
                "mismatch": self.mismatch or None,
                "accepted": self.accepted or None,
                "metrics": [dict(metric) for metric in self.metrics] or None,
            }
        )


@dataclass(frozen=True)
class Request:
    """What became of a one-shot request."""

    value: str
    time: datetime
    result: str

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Request":
        """The stored one."""
        return cls(value=raw["value"], time=datetime.fromisoformat(raw["time"]), result=raw["result"])

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"value": self.value, "time": timestamp(self.time), "result": self.result}


@dataclass(frozen=True)
class HistoryEntry:
    """One finished rollout."""

    deployment_id: str
    revision: str
    adapter: str
    strategy: str
    started_at: datetime
    completed_at: datetime
    result: str  # Succeeded | RolledBack | Superseded
    reason: str

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "HistoryEntry":
        """The stored one; its revision is the end of its id."""
        return cls(
            deployment_id=raw["deploymentId"],
            revision=raw["deploymentId"].rsplit("/", 1)[-1],
            adapter=raw.get("adapter", ""),
            strategy=raw.get("strategy", ""),
            started_at=datetime.fromisoformat(raw["startTime"]),
            completed_at=datetime.fromisoformat(raw["completionTime"]),
            result=raw.get("result", ""),
            reason=raw.get("reason", ""),
        )

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "deploymentId": self.deployment_id,
            "adapter": self.adapter,
            "strategy": self.strategy,
            "startTime": timestamp(self.started_at),
            "completionTime": timestamp(self.completed_at),
            "durationSeconds": int((self.completed_at - self.started_at).total_seconds()),
            "result": self.result,
            "reason": self.reason,
        }

"""The status of a LoRADeployment, typed: the whole memory of the state machine.

Live objects are observed, never state; what is here survives a crash. A serialised zero stays a zero (weight 0 and
"no weight known" are different facts), and fields that a newer version wrote are carried along in `extra`.

    phase.py    where a rollout stands          step.py     arguments of the phase: step, pause, downtime
    version.py  revisions with a part in it     outcome.py  what came of comparisons, requests and rollouts
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_operator.core.rollout.outcome import Abort, Analysis, HistoryEntry, Request
from lora_operator.core.rollout.phase import IN_FLIGHT, Phase, Sub
from lora_operator.core.rollout.step import Downtime, Pause, Step
from lora_operator.core.rollout.stored import compact
from lora_operator.core.rollout.version import Previous, Version

__all__ = [
    "IN_FLIGHT",
    "Abort",
    "Analysis",
    "Downtime",
    "HistoryEntry",
    "Pause",
    "Phase",
    "Previous",
    "Request",
    "RolloutStatus",
    "Step",
    "Sub",
    "Version",
]


@dataclass(frozen=True)
class RolloutStatus:
    """The whole status."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    conditions: tuple[Mapping[str, Any], ...] = ()
    replicas: int = 0
    selector: str = ""
    stable: Version | None = None
    candidate: Version | None = None
    previous: Previous | None = None
    held_revision: str = ""
    step: Step | None = None
    pause: Pause | None = None
    abort: Abort | None = None
    last_requests: Mapping[str, Request] = field(default_factory=dict)
    analysis: Analysis | None = None  # None: nothing was compared since the last start
    downtime: Downtime = field(default_factory=Downtime)
    endpoints: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    effective: Mapping[str, Any] = field(default_factory=dict)
    profile_outdated: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "RolloutStatus":
        """The stored status; an empty one is that of a resource nobody has looked at yet."""
        return cls(
            observed_generation=raw.get("observedGeneration", 0),
            phase=Phase(raw.get("phase", Phase.PENDING)),
            conditions=tuple(raw.get("conditions") or ()),
            replicas=raw.get("replicas", 0),
            selector=raw.get("selector", ""),
            stable=Version.from_json(raw.get("stable")),
            candidate=Version.from_json(raw.get("candidate")),
            previous=Previous.from_json(raw.get("previous")),
            held_revision=raw.get("heldRevision", ""),
            step=Step.from_json(raw.get("step")),
            pause=Pause.from_json(raw.get("pause")),
            abort=Abort.from_json(raw.get("abort")),
            last_requests={verb: Request.from_json(item) for verb, item in (raw.get("lastRequests") or {}).items()},
            analysis=Analysis.from_json(raw.get("analysis")),
            downtime=Downtime.from_json(raw.get("downtime")),
            endpoints=tuple(raw.get("endpoints") or ()),
            history=tuple(HistoryEntry.from_json(item) for item in raw.get("history") or ()),
            effective=raw.get("effective") or {},
            profile_outdated=raw.get("profileOutdated", False),
            extra={key: value for key, value in raw.items() if key not in _KNOWN},
        )

    def to_json(self) -> dict[str, Any]:
        """The status as it is stored. Absent parts are left out; zeros are not."""
        requests = {verb: request.to_json() for verb, request in sorted(self.last_requests.items())}
        parts: dict[str, Any] = {
            "observedGeneration": self.observed_generation,
            "phase": str(self.phase),
            "conditions": [dict(condition) for condition in self.conditions],
            "replicas": self.replicas,
            "selector": self.selector,
            "stable": None if self.stable is None else self.stable.to_json(),
            "candidate": None if self.candidate is None else self.candidate.to_json(),
            "previous": None if self.previous is None else self.previous.to_json(),
            "heldRevision": self.held_revision or None,
            "step": None if self.step is None else self.step.to_json(),
            "pause": None if self.pause is None else self.pause.to_json(),
            "abort": None if self.abort is None else self.abort.to_json(),
            "lastRequests": requests or None,
            "analysis": None if self.analysis is None else self.analysis.to_json(),
            "downtime": self.downtime.to_json(),
            "endpoints": list(self.endpoints) or None,
            "history": [entry.to_json() for entry in self.history] or None,
            "effective": dict(self.effective) or None,
            "profileOutdated": self.profile_outdated,
        }
        return dict(self.extra) | compact(parts)


_KNOWN = frozenset(
    {
        "observedGeneration", "phase", "conditions", "replicas", "selector", "stable", "candidate", "previous", "heldRevision", "step",
        "pause", "abort", "lastRequests", "analysis", "downtime", "endpoints", "history", "effective", "profileOutdated",
    }
)  # fmt: skip

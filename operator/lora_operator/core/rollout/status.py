"""The status of a LoRADeployment, typed: the whole memory of the state machine.

Live objects are observed, never state; what is here survives a crash. A serialised zero stays a zero (weight 0 and
"no weight known" are different facts), and fields that a newer version wrote are carried along in `extra`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from lora_operator.api.conditions import timestamp
from lora_operator.core.analysis.verdict import Verdict

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
    "moment",
]


class Phase(StrEnum):
    """Where a rollout stands; the table of transitions is in decide.py."""

    PENDING = "Pending"
    STABLE = "Stable"
    PREPARING = "Preparing"
    STEPPING = "Stepping"
    PAUSED = "Paused"
    TESTING = "Testing"
    SWITCHING = "Switching"
    REPLACING = "Replacing"
    PROMOTING = "Promoting"
    ABORTING = "Aborting"
    ABORTED = "Aborted"
    DELETING = "Deleting"


# A candidate is on its way; only then it can be aborted, superseded or paused.
IN_FLIGHT = frozenset(
    {
        Phase.PREPARING,
        Phase.REPLACING,
        Phase.STEPPING,
        Phase.TESTING,
        Phase.SWITCHING,
        Phase.PROMOTING,
        Phase.PAUSED,
    }
)


class Sub(StrEnum):
    """What a phase is doing just now (status.step.sub)."""

    VERIFY = "Verify"  # pods start and are asked
    STABLE_DOWN = "StableDown"  # Replace without room: the old version leaves the GPU
    CANDIDATE_UP = "CandidateUp"  # … and the new one takes it
    DELAY = "Delay"  # BlueGreen: proven, until the switch
    AWAIT_PROMOTE = "AwaitPromote"  # somebody has to say go
    SCALE = "Scale"  # Canary: pods for the next weight
    WAIT_READY = "WaitReady"  # … start and are asked
    SHIFT = "Shift"  # the route is written until it is confirmed
    CONFIRM = "Confirm"  # … its controller has to take it
    ANALYSE = "Analyse"  # … and what the metrics say decides
    BAKE = "Bake"  # the weight is held for a time
    TEST = "Test"  # ABTest: the split is held until a winner is known, or the time is over
    CAPACITY = "Capacity"  # an abort first sees to the old version's pods
    CANDIDATE_DOWN = "CandidateDown"  # … for which the new one may have to leave the GPU
    DRAIN = "Drain"  # no traffic any more; streams finish
    UNROUTE = "Unroute"  # a deletion takes the route away


@dataclass(frozen=True)
class Version:
    """A revision with a part in the rollout. `weight` and `ready_replicas` are what was last seen, `target_weight` is wanted."""

    revision: str
    adapter: str
    artifact_digest: str
    weight: int = 0
    ready_replicas: int = 0
    target_weight: int | None = None  # None: not stored for this one (stable, previous)


@dataclass(frozen=True)
class Previous:
    """What served before: warm until `keep_until`, finishing its streams until `drain_until`, then scaled to 0."""

    version: Version
    keep_until: datetime
    drain_until: datetime


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


@dataclass(frozen=True)
class Pause:
    """Why and since when nothing moves, and the phase that goes on afterwards."""

    reason: str
    since: datetime
    until: datetime | None = None
    phase: Phase | None = None  # None: nothing had begun


@dataclass(frozen=True)
class Abort:
    """Why a candidate was given up, with what was seen."""

    revision: str
    reason: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


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


@dataclass(frozen=True)
class Downtime:
    """Declared by Replace without a free GPU. `seconds` of the last one that is over; `since` while it lasts."""

    seconds: int = 0
    since: datetime | None = None


@dataclass(frozen=True)
class Request:
    """What became of a one-shot request."""

    value: str
    time: datetime
    result: str


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
    downtime: Downtime = Downtime()
    endpoints: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    effective: Mapping[str, Any] = field(default_factory=dict)
    profile_outdated: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "RolloutStatus":
        """The stored status; an empty one is that of a resource nobody has looked at yet."""
        downtime = raw.get("downtime") or {}
        previous = raw.get("previous") or {}
        return cls(
            observed_generation=raw.get("observedGeneration", 0),
            phase=Phase(raw.get("phase", Phase.PENDING)),
            conditions=tuple(raw.get("conditions") or ()),
            replicas=raw.get("replicas", 0),
            selector=raw.get("selector", ""),
            stable=_version(raw.get("stable")),
            candidate=_version(raw.get("candidate")),
            previous=_previous(previous),
            held_revision=raw.get("heldRevision", ""),
            step=_step(raw.get("step")),
            pause=_pause(raw.get("pause")),
            abort=_abort(raw.get("abort")),
            last_requests={
                verb: Request(value=item["value"], time=_required(item["time"]), result=item["result"])
                for verb, item in (raw.get("lastRequests") or {}).items()
            },
            analysis=_analysis(raw.get("analysis")),
            downtime=Downtime(seconds=downtime.get("seconds", 0), since=moment(downtime.get("since"))),
            endpoints=tuple(raw.get("endpoints") or ()),
            history=tuple(_history(item) for item in raw.get("history") or ()),
            effective=raw.get("effective") or {},
            profile_outdated=raw.get("profileOutdated", False),
            extra={key: value for key, value in raw.items() if key not in _KNOWN},
        )

    def to_json(self) -> dict[str, Any]:
        """The status as it is stored. Absent parts are left out; zeros are not."""
        parts: dict[str, Any] = {
            "observedGeneration": self.observed_generation,
            "phase": str(self.phase),
            "conditions": [dict(condition) for condition in self.conditions],
            "replicas": self.replicas,
            "selector": self.selector,
            "stable": _version_json(self.stable),
            "candidate": _version_json(self.candidate),
            "previous": _previous_json(self.previous),
            "heldRevision": self.held_revision or None,
            "step": _step_json(self.step),
            "pause": _pause_json(self.pause),
            "abort": _abort_json(self.abort),
            "lastRequests": {
                verb: {"value": request.value, "time": timestamp(request.time), "result": request.result}
                for verb, request in sorted(self.last_requests.items())
            }
            or None,
            "analysis": _analysis_json(self.analysis),
            "downtime": _compact({"seconds": self.downtime.seconds, "since": _stamp(self.downtime.since)}),
            "endpoints": list(self.endpoints) or None,
            "history": [_history_json(entry) for entry in self.history] or None,
            "effective": dict(self.effective) or None,
            "profileOutdated": self.profile_outdated,
        }
        return dict(self.extra) | _compact(parts)


_KNOWN = frozenset(
    {
        "observedGeneration", "phase", "conditions", "replicas", "selector", "stable", "candidate", "previous", "heldRevision", "step",
        "pause", "abort", "lastRequests", "analysis", "downtime", "endpoints", "history", "effective", "profileOutdated",
    }
)  # fmt: skip


def moment(text: str | None) -> datetime | None:
    """A stored time; None where there is none."""
    return None if not text else datetime.fromisoformat(text)


def _required(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _stamp(value: datetime | None) -> str | None:
    return None if value is None else timestamp(value)


def _compact(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parts.items() if value is not None}


def _version(raw: Mapping[str, Any] | None) -> Version | None:
    if not raw:
        return None
    return Version(
        revision=raw["revision"],
        adapter=raw.get("adapter", ""),
        artifact_digest=raw.get("artifactDigest", ""),
        weight=raw.get("weight", 0),
        ready_replicas=raw.get("readyReplicas", 0),
        target_weight=raw.get("targetWeight"),
    )


def _version_json(version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return _compact(
        {
            "revision": version.revision,
            "adapter": version.adapter,
            "artifactDigest": version.artifact_digest,
            "weight": version.weight,
            "targetWeight": version.target_weight,
            "readyReplicas": version.ready_replicas,
        }
    )


def _previous(raw: Mapping[str, Any]) -> Previous | None:
    version = _version(raw)
    if version is None:
        return None
    return Previous(version=version, keep_until=_required(raw["keepUntil"]), drain_until=_required(raw["drainUntil"]))


def _previous_json(previous: Previous | None) -> dict[str, Any] | None:
    if previous is None:
        return None
    version = _version_json(previous.version) or {}
    return version | {"keepUntil": timestamp(previous.keep_until), "drainUntil": timestamp(previous.drain_until)}


def _step(raw: Mapping[str, Any] | None) -> Step | None:
    if not raw:
        return None
    return Step(
        sub=Sub(raw["sub"]),
        started_at=_required(raw["startedAt"]),
        deadline=moment(raw.get("deadline")),
        message=raw.get("message", ""),
        index=raw.get("index"),
        of=raw.get("of"),
        scale=raw.get("scale"),
        prefix=raw.get("prefix", ""),
        forced=raw.get("forced", False),
    )


def _step_json(step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    return _compact(
        {
            "index": step.index,
            "of": step.of,
            "sub": str(step.sub),
            "startedAt": timestamp(step.started_at),
            "deadline": _stamp(step.deadline),
            "message": step.message,
            "scale": step.scale,
            "prefix": step.prefix or None,
            "forced": step.forced or None,
        }
    )


def _pause(raw: Mapping[str, Any] | None) -> Pause | None:
    if not raw:
        return None
    phase = raw.get("phase")
    return Pause(
        reason=raw["reason"],
        since=_required(raw["since"]),
        until=moment(raw.get("until")),
        phase=None if phase is None else Phase(phase),
    )


def _pause_json(pause: Pause | None) -> dict[str, Any] | None:
    if pause is None:
        return None
    return _compact(
        {
            "reason": pause.reason,
            "since": timestamp(pause.since),
            "until": _stamp(pause.until),
            "phase": None if pause.phase is None else str(pause.phase),
        }
    )


def _abort(raw: Mapping[str, Any] | None) -> Abort | None:
    if not raw:
        return None
    return Abort(
        revision=raw.get("revision", ""),
        reason=raw["reason"],
        message=raw.get("message", ""),
        evidence=raw.get("evidence") or {},
    )


def _abort_json(abort: Abort | None) -> dict[str, Any] | None:
    if abort is None:
        return None
    parts = {"revision": abort.revision, "reason": abort.reason, "message": abort.message}
    return parts | ({"evidence": dict(abort.evidence)} if abort.evidence else {})


def _analysis(raw: Mapping[str, Any] | None) -> Analysis | None:
    if not raw or raw.get("verdict") not in list(Verdict):
        return None
    return Analysis(
        verdict=Verdict(raw["verdict"]),
        message=raw.get("message", ""),
        mismatch=raw.get("mismatch", ""),
        accepted=raw.get("accepted", ""),
        metrics=tuple(raw.get("metrics") or ()),
    )


def _analysis_json(analysis: Analysis | None) -> dict[str, Any] | None:
    if analysis is None:
        return None
    parts = {
        "verdict": str(analysis.verdict),
        "message": analysis.message or None,
        "mismatch": analysis.mismatch or None,
        "accepted": analysis.accepted or None,
        "metrics": [dict(metric) for metric in analysis.metrics] or None,
    }
    return _compact(parts)


def _history(raw: Mapping[str, Any]) -> HistoryEntry:
    return HistoryEntry(
        deployment_id=raw["deploymentId"],
        revision=raw["deploymentId"].rsplit("/", 1)[-1],
        adapter=raw.get("adapter", ""),
        strategy=raw.get("strategy", ""),
        started_at=_required(raw["startTime"]),
        completed_at=_required(raw["completionTime"]),
        result=raw.get("result", ""),
        reason=raw.get("reason", ""),
    )


def _history_json(entry: HistoryEntry) -> dict[str, Any]:
    return {
        "deploymentId": entry.deployment_id,
        "adapter": entry.adapter,
        "strategy": entry.strategy,
        "startTime": timestamp(entry.started_at),
        "completionTime": timestamp(entry.completed_at),
        "durationSeconds": int((entry.completed_at - entry.started_at).total_seconds()),
        "result": entry.result,
        "reason": entry.reason,
    }

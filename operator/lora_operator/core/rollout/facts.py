"""Observed facts and conditions of the status: only what was seen in this snapshot, and nothing that moves with the clock."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from lora_operator.api.conditions import Condition, Status, condition_of, merge_conditions
from lora_operator.api.reasons import Reason
from lora_operator.core.analysis.verdict import Verdict
from lora_operator.core.build.labels import selector_of
from lora_operator.core.rollout.move import Move
from lora_operator.core.rollout.observed import Observed
from lora_operator.core.rollout.status import IN_FLIGHT, Phase, RolloutStatus, Version

__all__ = ["with_conditions", "with_facts"]

_PROGRESSING = IN_FLIGHT - {Phase.PAUSED} | {Phase.ABORTING}


def with_facts(observed: Observed, status: RolloutStatus) -> RolloutStatus:
    """Weights, ready pods, replicas, selector, endpoints as they are now."""
    stable = _seen(observed, status.stable)
    previous = status.previous
    seen = None if previous is None else _seen(observed, previous.version)
    route = observed.route
    return replace(
        status,
        observed_generation=observed.generation,
        stable=stable,
        candidate=_seen(observed, status.candidate),
        previous=None if previous is None or seen is None else replace(previous, version=seen),
        replicas=0 if stable is None else len(observed.workload(stable.revision).staying),
        selector=_selector(observed, stable),
        endpoints=() if route is None or not route.owned or not route.weights else route.endpoints or status.endpoints,
        profile_outdated=_outdated(observed, stable),
    )


def _seen(observed: Observed, version: Version | None) -> Version | None:
    if version is None:
        return None
    return replace(
        version,
        weight=_weights(observed).get(version.revision, 0),
        ready_replicas=observed.workload(version.revision).ready,
    )


def _weights(observed: Observed) -> Mapping[str, int]:
    """Shares of requests through the declared route; until it exists through the one of a former spec.traffic."""
    if observed.route is not None:
        return observed.route.weights if observed.route.owned else {}
    return next((other.weights for other in observed.other_routes), {})


def _selector(observed: Observed, stable: Version | None) -> str:
    if stable is None:
        return ""
    labels = selector_of(observed.owner, revision=stable.revision)
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _outdated(observed: Observed, stable: Version | None) -> bool:
    """The serving revision was made of a profile that has changed since; the next revision will use the new one."""
    record = None if stable is None else observed.records.get(stable.revision)
    profile = None if record is None else observed.settings.profiles.get(record.profile)
    return record is not None and (profile is None or profile.digest != record.profile_digest)


def with_conditions(status: RolloutStatus, move: Move, *, now: datetime) -> RolloutStatus:
    """The status with the conditions that the move and the facts make true."""
    merged = merge_conditions(
        status.conditions, _conditions(status, move), generation=status.observed_generation, now=now
    )
    return replace(status, conditions=tuple(merged))


def _conditions(status: RolloutStatus, move: Move) -> Iterable[Condition]:
    def flag(kind: str, *, on: bool, reason: Reason | str, message: str = "") -> Condition:
        return Condition(type=kind, status="True" if on else "False", reason=reason, message=message)

    progressing = status.phase in _PROGRESSING
    yield flag("Ready", on=move.ready, reason=move.reason, message=move.message)
    yield _available(status)
    yield flag("Progressing", on=progressing, reason=move.reason, message=move.message if progressing else "")
    yield flag("Stalled", on=move.stalled, reason=move.reason, message=move.message if move.stalled else "")
    yield flag("Reconciling", on=not move.ready and not move.stalled, reason=move.reason)
    yield from _seldom(status, move)


def _available(status: RolloutStatus) -> Condition:
    serving = [v for v in (status.stable, status.candidate) if v is not None and v.weight > 0]
    pods = sum(version.ready_replicas for version in serving)
    if pods:
        return Condition(
            type="Available", status="True", reason=Reason.STABLE, message=f"pods that take requests: {pods}"
        )
    message = "no revision takes requests" if not serving else "no pod of the serving revision is ready"
    return Condition(
        type="Available", status="False", reason=Reason.CAPACITY_LOST if serving else Reason.PENDING, message=message
    )


def _seldom(status: RolloutStatus, move: Move) -> Iterable[Condition]:
    """Conditions that appear only once they were true."""
    rolled_back = status.phase is Phase.ABORTED and status.stable is not None
    if rolled_back and status.abort is not None:
        yield Condition(type="RolledBack", status="True", reason=status.abort.reason, message=status.abort.message)
    elif status.abort is None and condition_of(status.conditions, type="RolledBack") is not None:
        yield Condition(type="RolledBack", status="False", reason=move.reason)
    yield from _analysis(status, move)
    paused = status.phase is Phase.PAUSED
    if paused or condition_of(status.conditions, type="Paused") is not None:
        yield Condition(type="Paused", status="True" if paused else "False", reason=move.reason)


_PASSED: Mapping[Verdict, tuple[Status, Reason]] = {
    Verdict.PASS: ("True", Reason.ANALYSIS_PASSED),
    Verdict.DEGRADED: ("False", Reason.ANALYSIS_FAILED),
    Verdict.INSUFFICIENT_DATA: ("Unknown", Reason.INSUFFICIENT_DATA),
}


def _analysis(status: RolloutStatus, move: Move) -> Iterable[Condition]:
    """Of the running comparison, afterwards of the last one; Unknown once another rollout has begun."""
    if status.analysis is not None:
        passed, reason = _PASSED[status.analysis.verdict]
        yield Condition(type="AnalysisPassed", status=passed, reason=reason, message=status.analysis.message)
    elif condition_of(status.conditions, type="AnalysisPassed") is not None:
        yield Condition(type="AnalysisPassed", status="Unknown", reason=move.reason)

"""Promotion: the candidate takes all traffic, and only when that is confirmed does it become stable.

    status: candidate.targetWeight = 100 ► route written ► confirmed by its controller
      ► one status write: previous := stable, stable := candidate, phase Stable ► (upkeep.py: warm, drain, old to 0)

Nothing is re-created: promotion re-points. Before the confirmation an abort still has the old version whole.
"""

from dataclasses import replace
from datetime import datetime

from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import StrategyType
from lora_operator.core.build.revision import Revision
from lora_operator.core.rollout.abort import begin_abort
from lora_operator.core.rollout.health import judge_candidate
from lora_operator.core.rollout.history import close_downtime, with_history
from lora_operator.core.rollout.move import Move, Situation, earliest
from lora_operator.core.rollout.status import Phase, Previous, RolloutStatus, Sub, Version
from lora_operator.core.rollout.upkeep import (
    SHORTEST_DRAIN_SECONDS,
    SUCCEEDED,
    candidate_replicas,
    drain_previous,
    keep_candidate,
    keep_route,
    keep_stable,
    record_of,
    release_previous,
    verdict_of,
)
from lora_operator.core.rollout.weights import TOTAL

__all__ = ["advance_promotion", "begin_promotion", "keep_both", "shifting"]


def begin_promotion(s: Situation, revision: Revision) -> Move:
    """Writes the intent; the route follows in the same plan, after the status."""
    candidate, step = s.status.candidate, s.status.step
    assert candidate is not None  # noqa: S101 (a promotion promotes a candidate)
    assert step is not None  # noqa: S101
    status = replace(
        release_previous(s, s.status),
        phase=Phase.PROMOTING,
        candidate=replace(candidate, target_weight=TOTAL),
        step=replace(step, sub=Sub.SHIFT, forced=False),
    )
    return Move(
        status=status,
        reason=Reason.PROMOTING,
        message=f"revision {revision.revision} is verified and takes all traffic",
        effects=keep_route(replace(s, status=status), status),
        requeue_at=s.soon,
    )


def advance_promotion(s: Situation) -> Move:
    """Shift until confirmed, then make the candidate stable once the version before has left its place in status."""
    candidate = s.status.candidate
    assert candidate is not None  # noqa: S101 (a promotion promotes a candidate)
    waiting = shifting(s, reason=Reason.PROMOTING)
    if waiting is not None:
        return waiting
    status = drain_previous(s, s.status).status
    if status.previous is None:
        return _promoted(s, status, candidate)
    released = replace(s, status=release_previous(s, s.status))
    return keep_both(released, reason=Reason.PROMOTING, message="the version before the serving one is being stopped")


def shifting(s: Situation, *, reason: Reason) -> Move | None:
    """Waits for the route or gives the candidate up; None once all requests are known to go to it."""
    candidate = s.status.candidate
    assert candidate is not None  # noqa: S101 (only a candidate is shifted to)
    dead = s.observed.workload(candidate.revision).ready == 0
    if dead:
        lost = _lost(s, candidate, record_of(s, candidate))
        if lost is not None:
            return lost
    verdict = verdict_of(s, s.status)
    if verdict is not None and verdict.confirmed:
        return _held_back(s, candidate) if dead and _stable_answers(s) else None
    blocked = verdict is not None and verdict.reason in (Reason.GATEWAY_NOT_FOUND, Reason.ROUTE_NOT_ACCEPTED)
    message = "" if verdict is None else verdict.message
    waiting = keep_both(
        s,
        reason=verdict.reason if verdict is not None and blocked else reason,
        message=message or f"revision {candidate.revision} takes all traffic",
        warning=blocked,
    )
    return replace(waiting, requeue_at=s.soon)


def _stable_answers(s: Situation) -> bool:
    return s.status.stable is not None and s.observed.workload(s.status.stable.revision).ready > 0


def _held_back(s: Situation, candidate: Version) -> Move:
    """A promotion now would stop the only version that answers."""
    message = f"revision {candidate.revision} should answer all requests and none of its pods is ready"
    way = (
        "" if s.spec.rollback_automatic else f"; annotate loraops.dev/abort={candidate.revision}/<any word> to go back"
    )
    held = keep_both(s, reason=Reason.CAPACITY_LOST, message=message + way, warning=True)
    return replace(held, stalled=not s.spec.rollback_automatic)


def keep_both(s: Situation, *, reason: Reason, message: str, warning: bool = False) -> Move:
    """Both versions and the route as status says, with another look soon."""
    drain = drain_previous(s, s.status)
    return Move(
        status=drain.status,
        reason=reason,
        message=message,
        effects=(
            *keep_stable(s, s.status),
            *keep_candidate(s, s.status),
            *keep_route(s, s.status),
            *drain.effects,
        ),
        warning=warning,
        requeue_at=earliest(s.after(1), drain.look_again),
    )


def _lost(s: Situation, candidate: Version, revision: Revision | None) -> Move | None:
    """A candidate without a ready pod is waited for until the deadline, then given up."""
    step = s.status.step
    assert step is not None  # noqa: S101 (a promotion has a step)
    if revision is None:
        return begin_abort(s, reason=Reason.CAPACITY_LOST, message=f"revision {candidate.revision} is no longer stored")
    health = judge_candidate(s.observed, revision, replicas=candidate_replicas(s, s.status), now=s.now)
    late = step.deadline is not None and s.now >= step.deadline
    if (health.lost is None and not late) or not s.spec.rollback_automatic:
        return None
    reason = Reason.CAPACITY_LOST if health.lost is None else health.lost.reason
    return begin_abort(s, reason=reason, message=health.message)


def _promoted(s: Situation, status: RolloutStatus, candidate: Version) -> Move:
    old = status.stable
    still_there = old is not None and bool(s.observed.workload(old.revision).pods)
    previous = None
    if old is not None and still_there:
        seconds = max(SHORTEST_DRAIN_SECONDS, _drain_seconds(s, old))
        previous = Previous(version=old, keep_until=_keep_until(s), drain_until=s.after(seconds))
    done = with_history(s, status, version=candidate, result=SUCCEEDED, reason=Reason.PROMOTED)
    done = replace(
        done,
        phase=Phase.STABLE,
        stable=replace(candidate, target_weight=None),
        candidate=None,
        previous=previous,
        step=None,
        downtime=close_downtime(s, status.downtime),
    )
    return Move(
        status=done,
        reason=Reason.STABLE,
        message=f"revision {candidate.revision} of adapter {candidate.adapter} serves",
        ready=True,
        requeue_at=None if previous is None else previous.drain_until,
    )


def _keep_until(s: Situation) -> datetime:
    """BlueGreen keeps the old version warm; the other strategies only let it finish its streams."""
    strategy = s.spec.strategy
    if strategy.type is not StrategyType.BLUE_GREEN:
        return s.now
    return s.after(strategy.blue_green.keep_previous_seconds)


def _drain_seconds(s: Situation, old: Version) -> int:
    record = record_of(s, old)
    return s.spec.runtime.drain_seconds if record is None else record.drain_seconds

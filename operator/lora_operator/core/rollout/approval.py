"""Paused, seen from the reason: who ends it, and what goes on then.

An approval that nobody gave in time expires as its step says. Its clock stands still while spec.paused or a pause request
holds the rollout.
"""

from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import OnTimeout
from lora_operator.core.rollout.abort import begin_abort
from lora_operator.core.rollout.abtest import in_test, pause_untestable, promote_candidate, split_changed
from lora_operator.core.rollout.bluegreen import begin_switch, promote_switched
from lora_operator.core.rollout.canary import next_step, not_showable, pause_unshowable, steps_changed, take_back
from lora_operator.core.rollout.candidate import examine, give_up
from lora_operator.core.rollout.comparing import passes
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.pausing import PAUSE_REQUESTED, SPEC_PAUSED, hold, may_pause, pause, resumed
from lora_operator.core.rollout.status import Phase, Sub
from lora_operator.core.rollout.traffic import untestable

__all__ = ["approve", "pause_or_resume"]


def pause_or_resume(s: Situation) -> Move | None:
    """Enters, keeps or ends a pause; None when nothing is paused."""
    if s.status.phase is Phase.PAUSED:
        return _paused(s)
    return pause(s, reason=SPEC_PAUSED) if s.spec.paused and may_pause(s) else None


def approve(s: Situation) -> Move:
    """Somebody said go, or the time for it is over and the step goes on without."""
    step, paused = s.status.step, s.status.pause
    if in_test(s.status):
        return promote_candidate(s)
    if paused is not None and paused.phase is Phase.SWITCHING and step is not None and step.sub is Sub.ANALYSE:
        return promote_switched(s)
    return begin_switch(s) if step is None or step.index is None else next_step(s)


def _paused(s: Situation) -> Move:
    reason = SPEC_PAUSED if s.status.pause is None else s.status.pause.reason
    if reason == SPEC_PAUSED:
        return hold(s) if s.spec.paused else _goes_on(s)
    if reason in (PAUSE_REQUESTED, Reason.ANALYSIS_FAILED, Reason.SAMPLE_RATIO_MISMATCH):
        return hold(s)
    if reason == Reason.INSUFFICIENT_DATA:
        return approve(s) if passes(s.observed, s.status, now=s.now) else hold(s)
    if reason == Reason.STEPS_CHANGED:
        return hold(s) if _changed(s) else take_back(s)
    held_up = _held_up(s)
    if held_up is not None:
        return held_up
    return take_back(s) if reason == Reason.WEIGHT_NOT_REACHABLE else _waits(s)


def _changed(s: Situation) -> bool:
    return split_changed(s) if in_test(s.status) else steps_changed(s)


def _held_up(s: Situation) -> Move | None:
    """The declared traffic cannot bring what is held."""
    if in_test(s.status):
        return pause_untestable(s) if untestable(s.spec) else None
    return pause_unshowable(s) if not_showable(s) else None


def _goes_on(s: Situation) -> Move:
    status = resumed(s)
    return Move(status=status, reason=Reason.PENDING, message="spec.paused is false again", requeue_at=s.now)


def _waits(s: Situation) -> Move:
    """For a promote request."""
    if _changed(s):
        return pause(s, reason=Reason.STEPS_CHANGED)
    if s.spec.paused:
        return pause(s, reason=SPEC_PAUSED)
    proof = examine(s)
    if isinstance(proof, Move):
        return proof
    if proof.health.lost is not None and s.spec.rollback_automatic:
        return give_up(s, proof, lost=proof.health.lost)
    if proof.step.deadline is not None and s.now >= proof.step.deadline:
        return _expired(s)
    held = hold(s)
    probes = proof.health.probes  # so that the answers are there when somebody says go
    return Move(**{**held.__dict__, "effects": (*held.effects, *probes)})


def _expired(s: Situation) -> Move:
    step, steps = s.status.step, s.spec.strategy.steps
    index = None if step is None else step.index
    if index is not None and index < len(steps) and steps[index].on_timeout is OnTimeout.PROMOTE:
        return approve(s)
    since = "" if s.status.pause is None else f" since {s.status.pause.since:%Y-%m-%dT%H:%M:%SZ}"
    return begin_abort(s, reason=Reason.APPROVAL_TIMED_OUT, message=f"nobody asked for promote{since}")

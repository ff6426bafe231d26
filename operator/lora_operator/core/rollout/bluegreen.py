"""Strategy BlueGreen: both versions whole, all requests switched at once, the old version kept warm.

    Preparing: proven ► switchDelaySeconds ─┬► Switching: all pods ready ► 100 ► confirmed ► (promote.py)
                        autoPromote: false ─┴► Paused until promote

With analysis.metrics the switched version is analysed before it is promoted: until the verdict is Pass, against what stable had counted
before.

The old version then stays warm for keepPreviousSeconds (upkeep.py); a return to it begins in Switching (start.py), under
every strategy.
"""

from dataclasses import replace

from lora_operator.api.conditions import timestamp
from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import StrategyType
from lora_operator.core.rollout.candidate import Proof, examine, give_up, until_proven, wait_for
from lora_operator.core.rollout.comparing import begun
from lora_operator.core.rollout.judgement import after_analysis
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.pausing import await_promote
from lora_operator.core.rollout.promote import keep_both, shifting
from lora_operator.core.rollout.status import Phase, Step, Sub
from lora_operator.core.rollout.upkeep import keep_route, release_previous
from lora_operator.core.rollout.weights import TOTAL

__all__ = ["advance_delay", "advance_switch", "begin_delay", "begin_switch", "delays", "promote_switched"]


def delays(s: Situation) -> bool:
    """Whether the spec still asks for a switch after a delay: it may have been edited while the delay runs."""
    return s.spec.strategy.type is StrategyType.BLUE_GREEN and s.spec.strategy.blue_green.auto_promote


def begin_delay(s: Situation, proof: Proof) -> Move:
    """The candidate is proven: it waits for its time, or for somebody to say go."""
    if not delays(s):
        return await_promote(s, phase=Phase.PREPARING, until=None, reason=Reason.AWAITING_PROMOTE)
    said = s.spec.strategy.blue_green.switch_delay_seconds
    seconds = s.observed.settings.switch_delay_seconds if said is None else said
    if seconds == 0:
        return begin_switch(s)
    deadline = s.after(seconds)
    message = f"proven; takes all requests at {timestamp(deadline)}"
    status = replace(s.status, step=replace(proof.step, sub=Sub.DELAY, deadline=deadline, message=message))
    return Move(
        status=status,
        reason=Reason.PREPARING,
        message=f"revision {proof.revision.revision}: {message}",
        requeue_at=deadline,
    )


def advance_delay(s: Situation, proof: Proof) -> Move:
    """Until the switch: a candidate that is lost meanwhile is given up, one that is not ready is waited for afterwards."""
    if proof.health.lost is not None:
        return give_up(s, proof, lost=proof.health.lost)
    if proof.step.deadline is None or s.now >= proof.step.deadline:
        return begin_switch(s)
    return wait_for(s, proof, reason=Reason.PREPARING, message=proof.step.message)


def begin_switch(s: Situation) -> Move:
    """All pods have to be ready once more before any request goes there."""
    step = s.status.step
    assert step is not None  # noqa: S101 (a switch belongs to a rollout)
    deadline = s.after(s.spec.progress_deadline_seconds)
    step = replace(step, sub=Sub.WAIT_READY, deadline=deadline, message="", scale=None)
    return Move(
        status=replace(s.status, phase=Phase.SWITCHING, pause=None, step=step),
        reason=Reason.SWITCHING,
        message="the switch begins",
        requeue_at=s.now,
    )


def advance_switch(s: Situation) -> Move:
    """One step of Switching."""
    step = s.status.step
    assert step is not None  # noqa: S101 (Switching has a candidate and a step)
    if step.sub is Sub.WAIT_READY:
        proof = examine(s)
        if isinstance(proof, Move):
            return proof
        return until_proven(s, proof, reason=Reason.SWITCHING) or _shift(s, proof)
    waiting = shifting(s, reason=Reason.SWITCHING)
    if waiting is not None:
        return waiting
    if s.status.analysis is None:  # none is declared, or this is a way back
        return promote_switched(s)
    return _analyse(s, step)


def _analyse(s: Situation, step: Step) -> Move:
    """All requests are there: the old version stays whole until the figures say that the new one is no worse."""
    if step.sub is not Sub.ANALYSE:
        deadline = s.after(s.spec.analysis.timeout_seconds)
        status = replace(
            s.status, step=replace(step, sub=Sub.ANALYSE, deadline=deadline, message="analysed after the switch")
        )
        return keep_both(replace(s, status=status), reason=Reason.SWITCHING, message="the switched version is analysed")
    return after_analysis(
        s,
        until=s.now if step.deadline is None else step.deadline,
        waiting=lambda reason, lacks: keep_both(s, reason=reason, message=f"analysed after the switch; {lacks}"),
        go_on=promote_switched,
    )


def promote_switched(s: Situation) -> Move:
    """It has all requests already, and becomes stable."""
    candidate = s.status.candidate
    assert candidate is not None  # noqa: S101 (Switching has a candidate)
    return Move(
        status=replace(s.status, phase=Phase.PROMOTING, pause=None),
        reason=Reason.PROMOTING,
        message=f"revision {candidate.revision} takes all requests",
        requeue_at=s.now,
    )


def _shift(s: Situation, proof: Proof) -> Move:
    candidate = s.status.candidate
    assert candidate is not None  # noqa: S101
    status = replace(
        release_previous(s, s.status),
        candidate=replace(candidate, target_weight=TOTAL),
        step=replace(proof.step, sub=Sub.SHIFT, forced=False),
        analysis=begun(s.spec),
    )
    return Move(
        status=status,
        reason=Reason.SWITCHING,
        message=f"revision {candidate.revision} takes all requests",
        effects=keep_route(replace(s, status=status), status),
        requeue_at=s.soon,
    )

"""Strategy Canary: step by step, each part of a step written down before it is done.

    setWeight          Scale ► WaitReady ► Shift ► Confirm ► next step
    pause {seconds}    Bake, until its deadline
    analyse {seconds}  Analyse, at least that long and until the verdict is Pass (judgement.py)
    pause {}           Paused (AwaitingPromote), until somebody says go or its time is over (approval.py)
    after the last     Scale to all replicas ► WaitReady ► (promote.py)

Pods are there before their weight, and stay until the rollout is over: a weight that goes down again takes no pod away from
running streams. Edited steps: as long as those already taken are unchanged the index is kept, otherwise Paused (StepsChanged).
"""

from dataclasses import replace
from datetime import timedelta

from lora_operator.api.conditions import timestamp
from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import CanaryStep, StrategyType
from lora_operator.core.plan import Note
from lora_operator.core.rollout.candidate import Proof, examine, give_up, until_proven, wait_for
from lora_operator.core.rollout.comparing import begun
from lora_operator.core.rollout.judgement import after_analysis
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.pausing import await_promote, hold, pause, resumed
from lora_operator.core.rollout.promote import begin_promotion
from lora_operator.core.rollout.status import Phase, Step, Sub
from lora_operator.core.rollout.traffic import unshowable_step, unshowable_weight
from lora_operator.core.rollout.weighing import confirm, scale, shift
from lora_operator.core.rollout.weights import TOTAL

__all__ = [
    "advance_steps",
    "begin_steps",
    "finish_steps",
    "next_step",
    "not_showable",
    "pause_unshowable",
    "repeat_step",
    "resume_steps",
    "steps_changed",
    "take_back",
]


def begin_steps(s: Situation) -> Move:
    """The candidate is proven: the first step."""
    return _enter(s, index=0)


def next_step(s: Situation) -> Move:
    """The running step is over."""
    return _enter(s, index=_index(_step(s)) + 1)


def repeat_step(s: Situation) -> Move:
    """The running step from its beginning."""
    return _enter(s, index=_index(_step(s)))


def finish_steps(s: Situation) -> Move:
    """No further step: everything to the candidate."""
    return _enter(s, index=len(s.spec.strategy.steps))


def resume_steps(s: Situation) -> Move:
    """Goes on in an edited list, where the weight is not lower than now; from its beginning when it is lower everywhere."""
    if s.spec.strategy.type is not StrategyType.CANARY:
        return finish_steps(s)
    weight = 0 if s.status.candidate is None else s.status.candidate.target_weight or 0
    steps = s.spec.strategy.steps
    index = next((i for i, step in enumerate(steps) if step.weight is not None and step.weight >= weight), 0)
    return _enter(s, index=index)


def steps_changed(s: Situation) -> bool:
    """Whether a step that was already taken, or is being taken, is not what it was."""
    step, strategy = s.status.step, s.spec.strategy
    if step is None or step.index is None or step.of is None:
        return False
    taken = min(step.index + 1, step.of)
    if strategy.type is not StrategyType.CANARY:
        return step.index < step.of
    return len(strategy.steps) < taken or strategy.prefix(taken) != step.prefix


def not_showable(s: Situation) -> str:
    """Why the weight of the running step, or the one that is held, cannot be shown any more; empty where it can.

    Replicas, traffic and the steps to come may be edited in the middle of a canary.
    """
    candidate, step = s.status.candidate, s.status.step
    if candidate is None or step is None or step.index is None:
        return ""
    weighs = step.sub in (Sub.SCALE, Sub.WAIT_READY, Sub.SHIFT, Sub.CONFIRM)
    if weighs:
        return unshowable_step(s.spec, index=step.index)
    return unshowable_weight(s.spec, weight=candidate.target_weight or 0)


def take_back(s: Situation) -> Move:
    """The edit was taken back, or another made up for it: on as if nothing had been."""
    return Move(status=resumed(s), reason=Reason.STEPPING, message="what stood in the way is gone", requeue_at=s.now)


def advance_steps(s: Situation) -> Move:
    """One part of a step."""
    if steps_changed(s):
        return pause(s, reason=Reason.STEPS_CHANGED)
    step, count = _step(s), len(s.spec.strategy.steps)
    if s.spec.strategy.type is StrategyType.CANARY and count != step.of:  # edited behind the running step
        if _index(step) == step.of:
            return _enter(s, index=_index(step))
        s = replace(s, status=replace(s.status, step=replace(step, of=count)))
    if not_showable(s):
        return pause_unshowable(s)
    proof = examine(s)
    return proof if isinstance(proof, Move) else _advance(s, proof)


def pause_unshowable(s: Situation) -> Move:
    """Begins or keeps that pause, and says why."""
    again = s.status.pause is not None and s.status.pause.reason == Reason.WEIGHT_NOT_REACHABLE
    held = hold(s) if again else pause(s, reason=Reason.WEIGHT_NOT_REACHABLE)
    return replace(held, message=f"{not_showable(s)}; {held.message}", warning=True)


def _advance(s: Situation, proof: Proof) -> Move:
    match proof.step.sub:
        case Sub.SCALE:
            return scale(s, proof, reason=Reason.STEPPING)
        case Sub.WAIT_READY:
            return until_proven(s, proof, reason=Reason.STEPPING) or _shift(s, proof)
        case Sub.SHIFT | Sub.CONFIRM:
            return confirm(s, proof, reason=Reason.STEPPING) or next_step(s)
        case Sub.ANALYSE:
            return _analyse(s, proof)
        case _:
            return _bake(s, proof)


def _enter(s: Situation, *, index: int) -> Move:
    """Writes down which step comes; its first effect follows from that."""
    steps = s.spec.strategy.steps if s.spec.strategy.type is StrategyType.CANARY else ()
    of = len(steps)
    index = min(index, of)
    step = replace(
        _step(s),
        index=index,
        of=of,
        prefix=s.spec.strategy.prefix(min(index + 1, of)),
        message=f"step {index + 1} of {of}" if index < of else "after the last step",
    )
    if index == of:
        return _enter_weight(s, step=step, weight=TOTAL)
    wanted = steps[index]
    if wanted.weight is not None:
        return _enter_weight(s, step=step, weight=wanted.weight)
    return _enter_pause(s, step=step, wanted=wanted)


def _enter_weight(s: Situation, *, step: Step, weight: int) -> Move:
    step = replace(
        step,
        sub=Sub.SCALE,
        scale=max(step.scale or 0, weight),
        deadline=s.after(s.spec.progress_deadline_seconds),
        message=f"{step.message}: weight {weight}",
    )
    return _entered(s, step=step)


def _enter_pause(s: Situation, *, step: Step, wanted: CanaryStep) -> Move:
    weight = 0 if s.status.candidate is None else s.status.candidate.target_weight or 0
    if wanted.bake_seconds is not None:
        deadline = s.after(wanted.bake_seconds)
        message = f"{step.message}: weight {weight} is held until {timestamp(deadline)}"
        return _entered(s, step=replace(step, sub=Sub.BAKE, deadline=deadline, message=message))
    if wanted.analyse_seconds is not None:
        deadline = s.after(wanted.analyse_seconds)
        message = f"{step.message}: weight {weight} is analysed until {timestamp(deadline)}"
        return _entered(s, step=replace(step, sub=Sub.ANALYSE, deadline=deadline, message=message))
    step = replace(step, message=f"{step.message}: weight {weight} is held")
    waiting = replace(s, status=replace(s.status, step=step))
    until = None if wanted.timeout_seconds is None else s.after(wanted.timeout_seconds)
    return await_promote(waiting, phase=Phase.STEPPING, until=until, reason=Reason.AWAITING_PROMOTE)


def _entered(s: Situation, *, step: Step) -> Move:
    message = f"revision {_revision(s)}: {step.message}"
    running = s.status.phase is Phase.STEPPING  # the first step has the Event of the phase
    return Move(
        status=replace(
            s.status, phase=Phase.STEPPING, pause=None, step=step, analysis=s.status.analysis or begun(s.spec)
        ),
        reason=Reason.STEPPING,
        message=message,
        notes=(Note(type="Normal", reason=Reason.STEPPING, message=message),) if running else (),
        requeue_at=s.now,
    )


def _shift(s: Situation, proof: Proof) -> Move:
    index = _index(proof.step)
    if index >= (proof.step.of or 0):
        return begin_promotion(s, proof.revision)
    weight = s.spec.strategy.steps[index].weight
    return shift(s, step=proof.step, weight=weight, reason=Reason.STEPPING)


def _bake(s: Situation, proof: Proof) -> Move:
    if proof.health.lost is not None:
        return give_up(s, proof, lost=proof.health.lost)
    if proof.step.deadline is None or s.now >= proof.step.deadline:
        return next_step(s)
    return wait_for(s, proof, reason=Reason.STEPPING, message=proof.step.message)


def _analyse(s: Situation, proof: Proof) -> Move:
    """At least its time, then until the verdict allows it; a worse candidate was given up before this is asked."""
    step = proof.step
    if proof.health.lost is not None:
        return give_up(s, proof, lost=proof.health.lost)
    if step.deadline is not None and s.now < step.deadline:
        return wait_for(s, proof, reason=Reason.STEPPING, message=step.message)
    seconds = s.spec.strategy.steps[_index(step)].analyse_seconds or 0
    ended = s.now if step.deadline is None else step.deadline
    more = max(0, s.spec.analysis.timeout_seconds - seconds)
    return after_analysis(
        s,
        until=ended + timedelta(seconds=more),
        waiting=lambda reason, lacks: wait_for(s, proof, reason=reason, message=f"{step.message}; {lacks}"),
        go_on=next_step,
    )


def _step(s: Situation) -> Step:
    assert s.status.step is not None  # noqa: S101 (a canary has a step)
    return s.status.step


def _index(step: Step) -> int:
    return 0 if step.index is None else step.index


def _revision(s: Situation) -> str:
    return "" if s.status.candidate is None else s.status.candidate.revision

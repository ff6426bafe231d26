"""Strategy ABTest: a fixed split until a winner is known, or its time is over.

    Scale ► WaitReady ► Shift ► Confirm ► Test ─┬► the candidate won   Scale to all ► WaitReady ► (promote.py)
      (split and header rule in one write)      ├► stable won          Aborting (StableWon)
                                                └► onEnd: Pause        Paused (TestEnded), until promote or abort

The candidate has to win: a test that measured too little when its time is over leaves stable where it is. An edit of the split
pauses (StepsChanged), because figures of two splits are not one test; `resume` begins it anew. An edit of `match` moves the header rule
and no weight.
"""

from dataclasses import replace

from lora_operator.api.conditions import timestamp
from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import ABTest, OnEnd, StrategyType
from lora_operator.core.plan import Note
from lora_operator.core.rollout.abort import begin_abort
from lora_operator.core.rollout.candidate import Proof, examine, give_up, until_proven, wait_for
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.observed import Winner
from lora_operator.core.rollout.pausing import await_promote, hold, pause
from lora_operator.core.rollout.promote import begin_promotion
from lora_operator.core.rollout.status import Phase, RolloutStatus, Step, Sub
from lora_operator.core.rollout.traffic import untestable
from lora_operator.core.rollout.weighing import confirm, scale, shift
from lora_operator.core.rollout.weights import TOTAL

__all__ = ["advance_test", "begin_test", "in_test", "pause_untestable", "promote_candidate", "split_changed"]


def in_test(status: RolloutStatus) -> bool:
    """Whether an A/B test runs, or was interrupted."""
    paused = status.phase is Phase.PAUSED and status.pause is not None and status.pause.phase is Phase.TESTING
    return status.phase is Phase.TESTING or paused


def begin_test(s: Situation) -> Move:
    """The candidate is proven: pods for its share. Where clients assign alone that share is not known: all pods."""
    test, step = _test(s), _step(s)
    share = test.candidate_weight
    message = f"test with split {TOTAL - share}:{share}"
    if test.match is not None:
        message += f", {test.match.kind} {test.match.name} goes to the candidate"
    step = replace(
        step,
        index=0,
        of=1,
        prefix=s.spec.strategy.split,
        sub=Sub.SCALE,
        scale=max(step.scale or 0, share or TOTAL),
        deadline=s.after(s.spec.progress_deadline_seconds),
        message=message,
    )
    return _entered(s, step=step)


def promote_candidate(s: Situation) -> Move:
    """It won, or somebody says so: all its pods, then everything."""
    step = replace(
        _step(s),
        index=1,
        of=1,
        prefix=s.spec.strategy.split,
        sub=Sub.SCALE,
        scale=TOTAL,
        deadline=s.after(s.spec.progress_deadline_seconds),
        message="the candidate gets everything",
    )
    return _entered(s, step=step)


def split_changed(s: Situation) -> bool:
    """Whether what is being measured is not what it was."""
    step, strategy = s.status.step, s.spec.strategy
    over = step is None or (step.index or 0) >= (step.of or 0)
    if over or step is None:
        return False
    return strategy.type is not StrategyType.AB_TEST or strategy.split != step.prefix


def pause_untestable(s: Situation) -> Move:
    """The declared traffic was edited to one that knows no test: held until that is taken back."""
    again = s.status.pause is not None and s.status.pause.reason == Reason.WEIGHT_NOT_REACHABLE
    held = hold(s) if again else pause(s, reason=Reason.WEIGHT_NOT_REACHABLE)
    return replace(held, message=f"{untestable(s.spec)}; {held.message}", warning=True)


def advance_test(s: Situation) -> Move:
    """One part of the test."""
    if split_changed(s):
        return pause(s, reason=Reason.STEPS_CHANGED)
    if untestable(s.spec):
        return pause_untestable(s)
    proof = examine(s)
    return proof if isinstance(proof, Move) else _advance(s, proof)


def _advance(s: Situation, proof: Proof) -> Move:
    match proof.step.sub:
        case Sub.SCALE:
            return scale(s, proof, reason=Reason.TESTING)
        case Sub.WAIT_READY:
            return until_proven(s, proof, reason=Reason.TESTING) or _shift(s, proof)
        case Sub.SHIFT | Sub.CONFIRM:
            return confirm(s, proof, reason=Reason.TESTING) or _measure(s, proof)
        case _:
            return _test_on(s, proof)


def _shift(s: Situation, proof: Proof) -> Move:
    if (proof.step.index or 0) >= (proof.step.of or 0):
        return begin_promotion(s, proof.revision)
    step = replace(proof.step, forced=True)
    return shift(s, step=step, weight=_test(s).candidate_weight, reason=Reason.TESTING)


def _measure(s: Situation, proof: Proof) -> Move:
    """The split is confirmed: from now on the time of the test runs."""
    deadline = s.after(_test(s).duration_seconds)
    message = f"{proof.step.message}, until {timestamp(deadline)} at the latest"
    return _entered(s, step=replace(proof.step, sub=Sub.TEST, deadline=deadline, message=message))


def _test_on(s: Situation, proof: Proof) -> Move:
    if proof.health.lost is not None:
        return give_up(s, proof, lost=proof.health.lost)
    verdict = s.observed.test
    over = proof.step.deadline is None or s.now >= proof.step.deadline
    if verdict is not None and verdict.winner is not Winner.OPEN:
        return _end(s, winner=verdict.winner, said=verdict.message)
    if over:
        said = "nothing was measured" if verdict is None else verdict.message
        return _end(
            s, winner=Winner.STABLE, said=f"the time is over and the candidate was not shown to be better: {said}"
        )
    said = "" if verdict is None or not verdict.message else f"; {verdict.message}"
    return wait_for(s, proof, reason=Reason.TESTING, message=proof.step.message + said)


def _end(s: Situation, *, winner: Winner, said: str) -> Move:
    """What the spec wants of a finished test; without an automatic rollback a person decides against the candidate too."""
    by_hand = winner is Winner.STABLE and not s.spec.rollback_automatic
    if _test(s).on_end is OnEnd.PAUSE or by_hand:
        step = replace(_step(s), message=f"{winner} won: {said}")
        ended = replace(s, status=replace(s.status, step=step))
        return await_promote(ended, phase=Phase.TESTING, until=None, reason=Reason.TEST_ENDED)
    if winner is Winner.STABLE:
        return begin_abort(s, reason=Reason.STABLE_WON, message=said)
    won = promote_candidate(s)
    return replace(won, notes=(Note(type="Normal", reason=Reason.TESTING, message=f"the candidate won: {said}"),))


def _entered(s: Situation, *, step: Step) -> Move:
    revision = "" if s.status.candidate is None else s.status.candidate.revision
    message = f"revision {revision}: {step.message}"
    begun = s.status.phase is Phase.TESTING  # the first part has the Event of the phase
    return Move(
        status=replace(s.status, phase=Phase.TESTING, pause=None, step=step),
        reason=Reason.TESTING,
        message=message,
        notes=(Note(type="Normal", reason=Reason.TESTING, message=message),) if begun else (),
        requeue_at=s.now,
    )


def _test(s: Situation) -> ABTest:
    test = s.spec.strategy.ab_test
    assert test is not None  # noqa: S101 (the parser wants it with this type; split_changed() has seen to the rest)
    return test


def _step(s: Situation) -> Step:
    assert s.status.step is not None  # noqa: S101 (a test has a step)
    return s.status.step

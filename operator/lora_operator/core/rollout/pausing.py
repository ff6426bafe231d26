"""Pauses: nothing moves, weights and pods are held and re-asserted, and no other clock runs.

    spec.paused       SpecPaused        ends with spec.paused: false
    pause request     PauseRequested    ends with resume or promote
    an approval       AwaitingPromote   ends with promote, or when its time is over (approval.py)
    a finished test   TestEnded         ends with promote or abort (abtest.py)
    edited steps      StepsChanged      ends with resume or promote, or when the edit is taken back (canary.py); a test's split too
    a worse candidate AnalysisFailed    where no rollback is automatic; ends with promote-full or abort (judgement.py)
    a wrong split     SampleRatioMismatch  ends with resume or promote
    too little data   InsufficientData  ends with enough data, resume or promote
    too few pods      WeightNotReachable  ends when the plain Service can show the weight (canary.py)

Not paused: a switch or a promotion that has begun, an abort, and a version that already gave up its GPU (that would only
prolong the downtime).
"""

from dataclasses import replace
from datetime import datetime

from lora_operator.api.conditions import timestamp
from lora_operator.api.reasons import Reason
from lora_operator.core.rollout.move import Move, Situation, earliest
from lora_operator.core.rollout.status import Pause, Phase, RolloutStatus, Sub
from lora_operator.core.rollout.upkeep import drain_previous, keep_candidate, keep_route, keep_stable

__all__ = [
    "PAUSE_REQUESTED",
    "SPEC_PAUSED",
    "await_promote",
    "hold",
    "may_pause",
    "pause",
    "resumed",
]

SPEC_PAUSED = "SpecPaused"
PAUSE_REQUESTED = "PauseRequested"
_WORDS = {
    SPEC_PAUSED: "spec.paused is true; set it to false to go on",
    PAUSE_REQUESTED: "paused by request; annotate loraops.dev/resume={revision}/<any word> to go on",
    Reason.AWAITING_PROMOTE: "waits for somebody to annotate loraops.dev/promote={revision}/<any word>",
    Reason.STEPS_CHANGED: (
        "what was already done (steps, or the split of a test) is not what it was; annotate loraops.dev/resume={revision}/<any word> to "
        "go on with the first step of the new list whose weight is not lower, or with a new test, or abort"
    ),
    Reason.TEST_ENDED: (
        "annotate loraops.dev/promote={revision}/<any word> for the candidate, or loraops.dev/abort={revision}/<any word> for stable"
    ),
    Reason.WEIGHT_NOT_REACHABLE: (
        "goes on by itself when the weight can be shown; or annotate loraops.dev/promote-full={revision}/<any word>, or abort"
    ),
    Reason.ANALYSIS_FAILED: (
        "annotate loraops.dev/abort={revision}/<any word> to go back, or loraops.dev/promote-full={revision}/<any word> to go on regardless"
    ),
    Reason.SAMPLE_RATIO_MISMATCH: (
        "mend the router, then annotate loraops.dev/resume={revision}/<any word> to go on, or abort"
    ),
    Reason.INSUFFICIENT_DATA: (
        "goes on by itself with enough data; or annotate loraops.dev/promote={revision}/<any word> to go on without, "
        "loraops.dev/resume={revision}/<any word> to wait once more, or abort"
    ),
}
_PAUSABLE = {
    Phase.PREPARING: frozenset({Sub.VERIFY, Sub.DELAY}),
    Phase.REPLACING: frozenset({Sub.VERIFY}),
    Phase.STEPPING: frozenset(Sub),
    Phase.TESTING: frozenset(Sub),
    Phase.SWITCHING: frozenset({Sub.WAIT_READY, Sub.ANALYSE}),
}


def may_pause(s: Situation) -> bool:
    """Whether the rollout stands where it can be held."""
    step = s.status.step
    return s.status.candidate is not None and step is not None and step.sub in _PAUSABLE.get(s.status.phase, ())


def pause(s: Situation, *, reason: str) -> Move:
    """Writes why; the phase that was interrupted goes on afterwards."""
    begun = None if s.status.candidate is None else s.status.phase
    if s.status.phase is Phase.PAUSED and s.status.pause is not None:
        begun = s.status.pause.phase  # one pause follows another: what was interrupted first goes on in the end
    status = replace(s.status, phase=Phase.PAUSED, pause=Pause(reason=str(reason), since=s.now, phase=begun))
    return hold(replace(s, status=status))


def await_promote(s: Situation, *, phase: Phase, until: datetime | None, reason: Reason) -> Move:
    """Waits for a promote request. `phase`: what is interrupted; `until`: None waits without end."""
    step = s.status.step
    assert step is not None  # noqa: S101 (an approval is a step of a rollout)
    status = replace(
        s.status,
        phase=Phase.PAUSED,
        pause=Pause(reason=str(reason), since=s.now, until=until, phase=phase),
        step=replace(step, sub=Sub.AWAIT_PROMOTE, deadline=until),
    )
    return hold(replace(s, status=status))


def hold(s: Situation) -> Move:
    """Everything stays as it is."""
    status, reason = s.status, "" if s.status.pause is None else s.status.pause.reason
    drain = drain_previous(s, status)
    return Move(
        status=drain.status,
        reason=reason if reason in list(Reason) else Reason.PAUSED,
        message=_message(status, reason),
        effects=(
            *keep_stable(s, status),
            *keep_candidate(s, status),
            *keep_route(s, status),
            *drain.effects,
        ),
        requeue_at=earliest(drain.look_again, None if status.pause is None else status.pause.until),
    )


def _message(status: RolloutStatus, reason: str) -> str:
    revision = "" if status.candidate is None else status.candidate.revision
    words = _WORDS.get(reason, "").format(revision=revision)
    until = None if status.pause is None else status.pause.until
    place = "" if status.step is None or not status.step.message else f"{status.step.message}; "
    return f"{place}{words}" + ("" if until is None else f" until {timestamp(until)}")


def resumed(s: Situation) -> RolloutStatus:
    """The status after the pause: what was interrupted, its clock moved on by the time that the pause took."""
    paused, step = s.status.pause, s.status.step
    if s.status.candidate is None or step is None:
        return replace(s.status, phase=Phase.PENDING, pause=None)
    before = Phase.PREPARING if s.status.stable is None else Phase.REPLACING
    phase = before if paused is None or paused.phase is None else paused.phase
    held = s.now - (s.now if paused is None else paused.since)
    step = replace(step, deadline=None if step.deadline is None else step.deadline + held)
    if step.sub is Sub.AWAIT_PROMOTE:
        again = Pause(reason=str(Reason.AWAITING_PROMOTE), since=s.now, until=step.deadline, phase=phase)
        return replace(s.status, phase=Phase.PAUSED, pause=again, step=step)
    return replace(s.status, phase=phase, pause=None, step=step)

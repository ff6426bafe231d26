"""One-shot requests from people: annotations `loraops.dev/<verb>: <revision>/<nonce>`, each answered once.

A request is new when its value differs from the recorded one; several are taken one per reconcile in the order abort,
rollback-to, pause, resume, promote, promote-full, retry. The answer is recorded whatever it is, so that a request that
means nothing now does not wake up later.
"""

from collections.abc import Callable
from dataclasses import replace

from lora_operator.api.names import GROUP
from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import StrategyType
from lora_operator.core.rollout.abort import begin_abort
from lora_operator.core.rollout.abtest import begin_test, in_test, promote_candidate
from lora_operator.core.rollout.approval import approve
from lora_operator.core.rollout.bluegreen import begin_switch, promote_switched
from lora_operator.core.rollout.canary import finish_steps, next_step, repeat_step, resume_steps
from lora_operator.core.rollout.goal import ROLLBACK_ACCEPTED, Goal
from lora_operator.core.rollout.judgement import accept_split
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.pausing import PAUSE_REQUESTED, SPEC_PAUSED, may_pause, pause, resumed
from lora_operator.core.rollout.status import IN_FLIGHT, Phase, Request, RolloutStatus, Sub

__all__ = ["VERBS", "take_request"]

VERBS = ("abort", "rollback-to", "pause", "resume", "promote", "promote-full", "retry")
LONGEST = 256  # what the schema stores of a value and of a result


def take_request(s: Situation) -> Move | None:
    """The move that answers the first new request; None when there is none."""
    for verb in VERBS:
        value = s.observed.annotations.get(f"{GROUP}/{verb}", "")[:LONGEST]
        known = s.status.last_requests.get(verb)
        if value and (known is None or known.value != value):
            return _ANSWERS[verb](s, verb, value)
    return None


def _about_candidate(answer: Callable[[Situation], "Move | str"]) -> Callable[[Situation, str, str], Move]:
    """A request that is about the running rollout's candidate. `answer`: the move, or why the request means nothing now."""

    def take(s: Situation, verb: str, value: str) -> Move:
        candidate = s.status.candidate
        if candidate is None or s.status.phase not in IN_FLIGHT:
            return _ignored(s, verb, value, "no rollout is running")
        if candidate.revision != _revision(value):
            return _ignored(s, verb, value, f"the candidate is {candidate.revision}")
        found = answer(replace(s, status=_recorded(s, verb, value, result=ROLLBACK_ACCEPTED)))
        return _ignored(s, verb, value, found) if isinstance(found, str) else found

    return take


def _abort(s: Situation) -> Move | str:
    return begin_abort(s, reason=Reason.ABORT_REQUESTED, message="asked for by annotation")


def _pause(s: Situation) -> Move | str:
    if s.status.phase is Phase.PAUSED:
        return f"it is paused already ({_pause_reason(s)})"
    return pause(s, reason=PAUSE_REQUESTED) if may_pause(s) else f"a rollout in phase {s.status.phase} goes on"


def _resume(s: Situation) -> Move | str:
    reason = _pause_reason(s)
    if reason == PAUSE_REQUESTED:
        return Move(status=resumed(s), reason=Reason.PENDING, message="resumed by request", requeue_at=s.now)
    if reason == Reason.STEPS_CHANGED:
        return begin_test(s) if s.spec.strategy.type is StrategyType.AB_TEST else resume_steps(_unforced(s))
    if reason == Reason.SAMPLE_RATIO_MISMATCH:
        accepted = accept_split(s)
        return Move(status=resumed(accepted), reason=Reason.PENDING, message="resumed by request", requeue_at=s.now)
    if reason == Reason.INSUFFICIENT_DATA:
        return _waits_once_more(s)
    return _NOT_RESUMED.get(reason, "it waits for promote")


_NOT_RESUMED = {
    "": "it is not paused",
    SPEC_PAUSED: "spec.paused is true; set it to false",
    Reason.ANALYSIS_FAILED: "the candidate is worse; ask for abort, or for promote-full to go on regardless",
    Reason.WEIGHT_NOT_REACHABLE: "the weight cannot be shown; see condition Ready for the ways out",
}


def _waits_once_more(s: Situation) -> Move:
    step = s.status.step
    if step is not None and step.index is not None:
        return repeat_step(s)
    status = resumed(s)
    later = s.after(s.spec.analysis.timeout_seconds)
    step = None if status.step is None else replace(status.step, deadline=later)
    return Move(
        status=replace(status, step=step), reason=Reason.PENDING, message="resumed by request", requeue_at=s.now
    )


def _unforced(s: Situation) -> Situation:
    """A test that became something else: its header rule goes."""
    step = s.status.step
    return s if step is None else replace(s, status=replace(s.status, step=replace(step, forced=False)))


def _promote(s: Situation) -> Move | str:
    """Ends the current pause, whatever it waits for; only spec.paused is ended by the spec alone."""
    reason, step = _pause_reason(s), s.status.step
    sub = None if step is None else step.sub
    if reason == Reason.INSUFFICIENT_DATA:
        return approve(s)
    if reason:
        waits = sub is Sub.AWAIT_PROMOTE and reason not in (SPEC_PAUSED, Reason.STEPS_CHANGED)
        return approve(s) if waits else _resume(s)
    go_on = None if sub is None else _ENDED_BY_PROMOTE.get((s.status.phase, sub))
    return f"phase {s.status.phase} has no pause to end" if go_on is None else go_on(s)


_ENDED_BY_PROMOTE: dict[tuple[Phase, Sub], Callable[[Situation], Move]] = {
    (Phase.STEPPING, Sub.BAKE): next_step,
    (Phase.STEPPING, Sub.ANALYSE): next_step,
    (Phase.PREPARING, Sub.DELAY): begin_switch,
    (Phase.TESTING, Sub.TEST): promote_candidate,
    (Phase.SWITCHING, Sub.ANALYSE): promote_switched,
}


def _promote_full(s: Situation) -> Move | str:
    """No further step: the candidate gets everything as soon as all its pods are ready."""
    step = s.status.step
    if _pause_reason(s) == SPEC_PAUSED:
        return "spec.paused is true; set it to false"
    if in_test(s.status):
        return promote_candidate(s)
    stepwise = step is not None and step.index is not None
    if stepwise and s.status.phase in (Phase.STEPPING, Phase.PAUSED):
        return finish_steps(s)
    if step is not None and step.index is None and step.sub is Sub.ANALYSE:
        return promote_switched(s)
    proven = step is not None and step.sub in (Sub.AWAIT_PROMOTE, Sub.DELAY)
    return (
        begin_switch(s) if proven else f"the candidate is not proven yet, or phase {s.status.phase} goes on by itself"
    )


def _pause_reason(s: Situation) -> str:
    """Empty: not paused."""
    if s.status.phase is not Phase.PAUSED:
        return ""
    return SPEC_PAUSED if s.status.pause is None else s.status.pause.reason


def _rollback(s: Situation, verb: str, value: str) -> Move:
    revision = _revision(value)
    status, declared = s.status, _declared(s)
    if revision not in s.observed.records:
        known = ", ".join(sorted(s.observed.records)) or "none"
        return _ignored(s, verb, value, f"revision {revision} is not stored (stored: {known})")
    if revision == declared:
        return _ignored(s, verb, value, f"revision {revision} is the declared one")
    if status.candidate is not None and status.candidate.revision == revision and status.phase in IN_FLIGHT:
        return _ignored(s, verb, value, f"revision {revision} is already on its way")
    forgiven = status.abort is not None and status.abort.revision == revision
    accepted = replace(
        _recorded(s, verb, value, result=ROLLBACK_ACCEPTED),
        held_revision=declared,
        abort=None if forgiven else status.abort,
    )
    message = f"going back to revision {revision}; {declared} is held until the spec names another or retry is asked"
    return Move(status=accepted, reason=Reason.HELD, message=message, requeue_at=s.now)


def _declared(s: Situation) -> str:
    """What the rollback leaves: the declared revision, or where that is not known the one in motion."""
    if isinstance(s.goal, Goal) and not s.goal.held:
        return s.goal.revision
    if s.status.held_revision:
        return s.status.held_revision
    version = s.status.candidate or s.status.stable
    return "" if version is None else version.revision


def _retry(s: Situation, verb: str, value: str) -> Move:
    revision, abort = _revision(value), s.status.abort
    accepted = _recorded(s, verb, value, result=ROLLBACK_ACCEPTED)
    if abort is not None and abort.revision == revision and s.status.phase in (Phase.ABORTED, Phase.PENDING):
        status = replace(accepted, abort=None)
    elif revision and s.status.held_revision == revision:
        status = replace(accepted, held_revision="")
    else:
        return _ignored(s, verb, value, f"revision {revision} was neither given up nor held")
    return Move(status=status, reason=Reason.PENDING, message=f"revision {revision} is tried again", requeue_at=s.now)


def _ignored(s: Situation, verb: str, value: str, why: str) -> Move:
    status = _recorded(s, verb, value, result=f"Ignored: {why}")
    return Move(
        status=status, reason=s.status.phase, message=f"request {verb}={value} ignored: {why}", requeue_at=s.now
    )


def _recorded(s: Situation, verb: str, value: str, *, result: str) -> RolloutStatus:
    request = Request(value=value, time=s.now, result=result[:LONGEST])
    return replace(s.status, last_requests={**s.status.last_requests, verb: request})


def _revision(value: str) -> str:
    return value.partition("/")[0]


_ANSWERS: dict[str, Callable[[Situation, str, str], Move]] = {
    "abort": _about_candidate(_abort),
    "rollback-to": _rollback,
    "pause": _about_candidate(_pause),
    "resume": _about_candidate(_resume),
    "promote": _about_candidate(_promote),
    "promote-full": _about_candidate(_promote_full),
    "retry": _retry,
}

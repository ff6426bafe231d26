"""One-shot requests from people: annotations `loraops.dev/<verb>: <revision>/<nonce>`, each answered once.

A request is new when its value differs from the recorded one; several are taken one per reconcile in the order abort,
rollback-to, pause, resume, promote, promote-full, retry. The answer is recorded whatever it is, so that a request that
means nothing now does not wake up later.
"""

from collections.abc import Callable
from dataclasses import replace

from lora_operator.api.names import GROUP
from lora_operator.api.reasons import Reason
from lora_operator.core.rollout.abort import begin_abort
from lora_operator.core.rollout.goal import ROLLBACK_ACCEPTED, Goal
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.status import Phase, Request, RolloutStatus

__all__ = ["VERBS", "take_request"]

VERBS = ("abort", "rollback-to", "pause", "resume", "promote", "promote-full", "retry")
LONGEST = 256  # what the schema stores of a value and of a result
_IN_FLIGHT = frozenset({Phase.PREPARING, Phase.REPLACING, Phase.PROMOTING, Phase.PAUSED})


def take_request(s: Situation) -> Move | None:
    """The move that answers the first new request; None when there is none."""
    for verb in VERBS:
        value = s.observed.annotations.get(f"{GROUP}/{verb}", "")[:LONGEST]
        known = s.status.last_requests.get(verb)
        if value and (known is None or known.value != value):
            return _ANSWERS[verb](s, verb, value)
    return None


def _abort(s: Situation, verb: str, value: str) -> Move:
    revision = _revision(value)
    candidate = s.status.candidate
    if candidate is None or s.status.phase not in _IN_FLIGHT:
        return _ignored(s, verb, value, "no rollout is running")
    if candidate.revision != revision:
        return _ignored(s, verb, value, f"the candidate is {candidate.revision}")
    asked = replace(s, status=_recorded(s, verb, value, result=ROLLBACK_ACCEPTED))
    return begin_abort(asked, reason=Reason.ABORT_REQUESTED, message="asked for by annotation")


def _rollback(s: Situation, verb: str, value: str) -> Move:
    revision = _revision(value)
    status, declared = s.status, _declared(s)
    if revision not in s.observed.records:
        known = ", ".join(sorted(s.observed.records)) or "none"
        return _ignored(s, verb, value, f"revision {revision} is not stored (stored: {known})")
    if revision == declared:
        return _ignored(s, verb, value, f"revision {revision} is the declared one")
    if status.candidate is not None and status.candidate.revision == revision and status.phase in _IN_FLIGHT:
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


def _without_meaning(s: Situation, verb: str, value: str) -> Move:
    return _ignored(s, verb, value, f"{verb} has no meaning under strategy {s.spec.strategy}")


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
    "abort": _abort,
    "rollback-to": _rollback,
    "pause": _without_meaning,
    "resume": _without_meaning,
    "promote": _without_meaning,
    "promote-full": _without_meaning,
    "retry": _retry,
}

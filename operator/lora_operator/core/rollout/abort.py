"""Abort: the old version gets everything back, in the order capacity ► destination ► weight ► drain ► candidate to 0.

    candidate never had weight   candidate to 0
    candidate has weight         stable ready ► stable = 100 ► confirmed ► drain ► candidate to 0
    stable gave up its GPU       candidate to 0 ► its pods gone ► stable ready ► (shift if it had weight)
    nothing served before        route removed ► confirmed ► drain ► candidate to 0

Ends in Aborted, which is sticky; after Superseded, or when the spec went back to stable, in Stable.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lora_operator.api.reasons import Reason
from lora_operator.core.plan import Effect
from lora_operator.core.rollout.children import keep_revision, scale_to_zero
from lora_operator.core.rollout.goal import Goal
from lora_operator.core.rollout.history import close_downtime, with_history
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.pods import TroubleKind
from lora_operator.core.rollout.status import Abort, Phase, RolloutStatus, Step, Sub, Version
from lora_operator.core.rollout.upkeep import (
    SHORTEST_DRAIN_SECONDS,
    drain_previous,
    keep_route,
    keep_stable,
    named_in_route,
    record_of,
    stable_replicas,
    verdict_of,
)
from lora_operator.core.rollout.weights import TOTAL

__all__ = ["advance_abort", "begin_abort"]

ROLLED_BACK = "RolledBack"
FAILED = "Failed"
SUPERSEDED = "Superseded"


def begin_abort(s: Situation, *, reason: Reason | str, message: str, evidence: Mapping[str, Any] | None = None) -> Move:
    """Writes why; what to do follows from status alone."""
    candidate = s.status.candidate
    assert candidate is not None  # noqa: S101 (only a candidate can be aborted)
    begun = s.status.step
    step = Step(sub=Sub.CAPACITY, started_at=s.now if begun is None else begun.started_at)
    if begun is not None and begun.index is not None:
        step = replace(step, index=begun.index, of=begun.of, forced=begun.forced)
    status = replace(
        s.status,
        phase=Phase.ABORTING,
        abort=Abort(revision=candidate.revision, reason=str(reason), message=message, evidence=dict(evidence or {})),
        pause=None,
        step=step,
    )
    return Move(
        status=status,
        reason=reason,
        message=f"revision {candidate.revision} is given up: {message}",
        warning=reason not in (Reason.SUPERSEDED, Reason.ABORT_REQUESTED),
        requeue_at=s.now,
    )


def advance_abort(s: Situation) -> Move:
    """One step back to the old version."""
    step = s.status.step
    assert step is not None  # noqa: S101 (Aborting has a step)
    match step.sub:
        case Sub.SHIFT:
            return _shift(s, step)
        case Sub.DRAIN:
            return _drain(s, step)
        case _:
            return _capacity(s, step)


def _capacity(s: Situation, step: Step) -> Move:
    """The old version's pods first: no weight goes where nobody answers."""
    candidate, stable = _candidate(s), s.status.stable
    had_weight = _may_have_streams(candidate, step)
    if stable is None or (not had_weight and s.status.downtime.since is None):
        return _to_shift(s, step) if had_weight else _candidate_down(s)
    if s.status.downtime.since is not None and _holds_gpu(s, candidate):
        return _wait(s, "the candidate leaves the GPU", effects=scale_to_zero(s.observed, candidate.revision))
    ready = s.observed.workload(stable.revision).ready
    if not _has_capacity(s, stable):
        return _wait(s, f"the old version starts: {ready} of {stable_replicas(s, s.status)} pods ready")
    return _to_shift(s, step) if had_weight else _candidate_down(s)


def _may_have_streams(candidate: Version, step: Step) -> bool:
    """A weight that went back to 0 leaves streams behind; only before the first weight there can be none."""
    return bool(candidate.target_weight or candidate.weight or step.index or step.forced)


def _has_capacity(s: Situation, stable: Version) -> bool:
    """All declared pods, or as many as there is room for: replicas raised meanwhile must not hold up a way back."""
    live = s.observed.workload(stable.revision)
    candidate = _candidate(s)
    dead = s.observed.workload(candidate.revision).ready == 0
    if live.ready and (dead or (candidate.target_weight or 0) < TOTAL):
        return True  # it serves already, or better than nobody; a missing pod is no reason to leave requests there
    missing = [pod for pod in live.staying if not pod.ready]
    no_room = all(pod.trouble is not None and pod.trouble.kind is TroubleKind.UNSCHEDULABLE for pod in missing)
    return live.ready >= stable_replicas(s, s.status) or (live.ready > 0 and bool(missing) and no_room)


def _to_shift(s: Situation, step: Step) -> Move:
    """Weight and header rules go together, in one write of the route."""
    candidate = _candidate(s)
    step = replace(step, sub=Sub.SHIFT, forced=False)
    status = replace(s.status, candidate=replace(candidate, target_weight=0), step=step)
    shifted = replace(s, status=status)
    return replace(_wait(shifted, "traffic goes back to the old version"), requeue_at=s.soon)


def _shift(s: Situation, step: Step) -> Move:
    verdict = verdict_of(s, s.status)
    if verdict is None or not verdict.confirmed:
        message = verdict.message if verdict and verdict.message else "traffic goes back to the old version"
        return replace(_wait(s, message), requeue_at=s.soon)
    record = record_of(s, _candidate(s))
    seconds = s.spec.runtime.drain_seconds if record is None else record.drain_seconds
    deadline = s.after(max(SHORTEST_DRAIN_SECONDS, seconds))
    status = replace(s.status, step=replace(step, sub=Sub.DRAIN, deadline=deadline))
    return replace(_wait(replace(s, status=status), "the candidate finishes its streams"), requeue_at=deadline)


def _drain(s: Situation, step: Step) -> Move:
    if step.deadline is not None and s.now < step.deadline:
        return replace(_wait(s, "the candidate finishes its streams"), requeue_at=step.deadline)
    if named_in_route(s, _candidate(s).revision):
        return _wait(s, "the route still names the candidate")
    return _candidate_down(s)


def _candidate_down(s: Situation) -> Move:
    candidate = _candidate(s)
    if s.observed.workload(candidate.revision).replicas > 0:
        return _wait(s, "the candidate is stopped", effects=scale_to_zero(s.observed, candidate.revision), keep=False)
    return _finish(s)


def _finish(s: Situation) -> Move:
    candidate, abort = _candidate(s), s.status.abort
    assert abort is not None  # noqa: S101 (Aborting knows why)
    superseded = abort.reason == Reason.SUPERSEDED
    result = SUPERSEDED if superseded else (FAILED if s.status.stable is None else ROLLED_BACK)
    status = with_history(s, s.status, version=candidate, result=result, reason=abort.reason)
    status = replace(status, step=None, downtime=close_downtime(s, status.downtime))
    wanted = s.goal.revision if isinstance(s.goal, Goal) else ""
    back = s.status.stable is not None and wanted == s.status.stable.revision
    if superseded or back:
        phase = Phase.PENDING if s.status.stable is None else Phase.STABLE
        status = replace(status, phase=phase, candidate=None, abort=None)
        return Move(
            status=status,
            reason=abort.reason,
            message=f"revision {candidate.revision}: {abort.message}",
            requeue_at=s.now,
        )
    return Move(
        status=replace(status, phase=Phase.ABORTED),
        reason=abort.reason,
        message=given_up_message(status),
        warning=True,
        stalled=True,
        requeue_at=s.now,
    )


def given_up_message(status: RolloutStatus) -> str:
    """What a person needs to know of a sticky abort."""
    abort = status.abort
    assert abort is not None  # noqa: S101 (asked only of an aborted rollout)
    serves = "nothing serves" if status.stable is None else f"revision {status.stable.revision} serves"
    return (
        f"revision {abort.revision} was given up: {abort.message}; {serves}; "
        f"declare another revision or annotate loraops.dev/retry={abort.revision}/<any word>"
    )


def _holds_gpu(s: Situation, candidate: Version) -> bool:
    live = s.observed.workload(candidate.revision)
    return live.replicas > 0 or bool(live.pods)


def _candidate(s: Situation) -> Version:
    assert s.status.candidate is not None  # noqa: S101 (Aborting has a candidate)
    return s.status.candidate


def _wait(s: Situation, message: str, *, effects: tuple[Effect, ...] = (), keep: bool = True) -> Move:
    """Keeps the old version and the route as status says; `keep` the candidate's pods too while they may have requests."""
    candidate, abort = _candidate(s), s.status.abort
    assert abort is not None  # noqa: S101 (Aborting knows why)
    drain = drain_previous(s, s.status)
    lent = s.status.downtime.since is not None and _holds_gpu(s, candidate)
    stable = () if lent else keep_stable(s, s.status)
    record = record_of(s, candidate)
    alive = s.observed.workload(candidate.revision).replicas > 0
    kept: tuple[Effect, ...] = ()
    if keep and alive and record is not None and not effects:
        kept = keep_revision(s.observed, record, replicas=s.observed.workload(candidate.revision).replicas)
    return Move(
        status=drain.status,
        reason=Reason.ABORTING,
        message=f"revision {candidate.revision} is given up ({abort.reason}: {abort.message}); {message}",
        effects=(*stable, *keep_route(s, s.status), *kept, *effects, *drain.effects),
        requeue_at=s.after(1),
    )

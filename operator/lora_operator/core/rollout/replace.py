"""Strategy Replace, and the first deployment of any strategy.

    room for both      create candidate ► ready ► verified ► (promote.py: shift ► confirm ► drain old ► old to 0)
    room for one only  status.downtime.since ► stable to 0 ► its pods gone ► candidate up ► verified ► (promote.py)
    nothing serves yet Preparing instead of Replacing, the same otherwise

The old version keeps every request until promote.py writes the route.
"""

from dataclasses import replace

from lora_operator.api.reasons import Reason
from lora_operator.core.build.revision import Revision
from lora_operator.core.plan import Note
from lora_operator.core.rollout.abort import begin_abort
from lora_operator.core.rollout.capacity import Fit, GpuNeed, fit_of
from lora_operator.core.rollout.children import keep_revision
from lora_operator.core.rollout.goal import Block, Goal, build_revision, need_of
from lora_operator.core.rollout.health import Health, Lost, judge_candidate
from lora_operator.core.rollout.move import Move, Situation, earliest
from lora_operator.core.rollout.promote import begin_promotion
from lora_operator.core.rollout.status import Downtime, Phase, Step, Sub
from lora_operator.core.rollout.upkeep import candidate_replicas, drain_previous, keep_route, keep_stable, record_of

__all__ = ["advance_replacement", "begin_rollout"]

SUPPLY_AGAIN_SECONDS = 15


def begin_rollout(s: Situation, goal: Goal) -> Move | Block:
    """Starts the goal's candidate, or says why it cannot be started."""
    revision = build_revision(s.observed, goal)
    if isinstance(revision, Block):
        return revision
    need = need_of(s.observed, goal)
    stable = s.status.stable
    fit = fit_of(s.observed.supply, need=need, replicas=candidate_replicas(s), has_stable=stable is not None)
    if fit is Fit.AFTER_STABLE and s.status.previous is not None:
        return Block(
            reason=Reason.DRAINING,
            message="waiting for the GPU of the version before, which still drains",
            stalled=False,
        )
    if fit is Fit.AFTER_STABLE and stable is not None and record_of(s, stable) is None:
        fit = Fit.BUSY  # a version that is not stored could not be brought back
    if need is not None and fit in (Fit.BUSY, Fit.NEVER):
        return _insufficient(s, need=need, fit=fit)
    sub = Sub.STABLE_DOWN if fit is Fit.AFTER_STABLE else Sub.VERIFY
    deadline = s.after(s.spec.progress_deadline_seconds)
    status = replace(
        s.status,
        phase=Phase.PREPARING if stable is None else Phase.REPLACING,
        candidate=goal.version,
        step=Step(sub=sub, started_at=s.now, deadline=deadline),
        abort=None,
        pause=None,
        held_revision=s.status.held_revision if goal.held else "",
        downtime=Downtime(since=s.now) if sub is Sub.STABLE_DOWN else s.status.downtime,
        effective=_effective(goal),
    )
    started = replace(s, status=status)
    notes = _forced(goal) + (_downtime_note(need) if sub is Sub.STABLE_DOWN else ())
    effects = () if sub is Sub.STABLE_DOWN else keep_revision(s.observed, revision, replicas=candidate_replicas(s))
    return Move(
        status=status,
        reason=Reason.PREPARING if stable is None else Reason.REPLACING,
        message=f"revision {goal.revision} of adapter {goal.adapter} is being started",
        effects=(*keep_stable(started, status), *effects),
        notes=notes,
        requeue_at=earliest(deadline, s.after(1) if sub is Sub.STABLE_DOWN else None),
    )


def _effective(goal: Goal) -> dict[str, object]:
    return {"forceDeploy": {"adapter": goal.adapter, "gates": list(goal.forced)}} if goal.forced else {}


def _forced(goal: Goal) -> tuple[Note, ...]:
    if not goal.forced:
        return ()
    message = f"adapter {goal.adapter} is deployed although it failed: {', '.join(goal.forced)}"
    return (Note(type="Warning", reason=Reason.FORCE_DEPLOYED, message=message),)


def _downtime_note(need: GpuNeed | None) -> tuple[Note, ...]:
    what = "GPU" if need is None else need.resource
    message = (
        f"no {what} is free beside the serving version: it is stopped first, requests fail until the new one is ready"
    )
    return (Note(type="Warning", reason=Reason.REPLACING, message=message),)


def _insufficient(s: Situation, *, need: GpuNeed, fit: Fit) -> Block:
    supply = s.observed.supply
    total, free = (0, 0) if supply is None else (supply.total, supply.free)
    pods = candidate_replicas(s)
    asked = f"{pods} pod{'s' if pods > 1 else ''} with {need.per_pod} {need.resource} each"
    way = "lower replicas or runtime.resources, or add nodes" if fit is Fit.NEVER else "free GPUs or add nodes"
    return Block(
        reason=Reason.INSUFFICIENT_GPU,
        message=f"needs {asked}; the nodes that match have {total} in all, {free} free; {way}",
        stalled=fit is Fit.NEVER,
    )


def advance_replacement(s: Situation) -> Move:
    """One step of Preparing or Replacing."""
    candidate, step = s.status.candidate, s.status.step
    assert candidate is not None  # noqa: S101 (these phases have a candidate and a step)
    assert step is not None  # noqa: S101
    goal = Goal(revision=candidate.revision, adapter=candidate.adapter, artifact_digest=candidate.artifact_digest)
    revision = build_revision(s.observed, goal)
    if isinstance(revision, Block):
        return begin_abort(s, reason=revision.reason, message=revision.message)
    if step.sub is Sub.STABLE_DOWN:
        return _stable_down(s, revision, step=step)
    health = judge_candidate(s.observed, revision, replicas=candidate_replicas(s), now=s.now)
    lost = health.lost or _deadline(s, step=step, health=health)
    if lost is not None:
        return _give_up(s, revision, step=step, lost=lost, health=health)
    if health.verified:
        return begin_promotion(s, revision)
    return _wait(s, revision, step=step, health=health, reason=_phase_reason(s), message=health.message)


def _phase_reason(s: Situation) -> Reason:
    return Reason.PREPARING if s.status.phase is Phase.PREPARING else Reason.REPLACING


def _stable_down(s: Situation, revision: Revision, *, step: Step) -> Move:
    """The old version leaves the GPU; only when its last pod is gone does the new one start."""
    stable = s.status.stable
    left = () if stable is None else s.observed.workload(stable.revision).pods
    if left:
        return Move(
            status=s.status,
            reason=Reason.REPLACING,
            message=f"the serving version is being stopped, pods left: {len(left)}",
            effects=keep_stable(s, s.status),
            requeue_at=s.after(1),
        )
    status = replace(s.status, step=replace(step, sub=Sub.CANDIDATE_UP))
    return Move(
        status=status,
        reason=Reason.REPLACING,
        message=f"revision {revision.revision} is being started",
        effects=keep_revision(s.observed, revision, replicas=candidate_replicas(s)),
        requeue_at=step.deadline,
    )


def _deadline(s: Situation, *, step: Step, health: Health) -> Lost | None:
    if step.deadline is None or s.now < step.deadline:
        return None
    return Lost(
        reason=Reason.PROGRESS_DEADLINE_EXCEEDED,
        message=f"not ready within {s.spec.progress_deadline_seconds} s: {health.message}",
        evidence={},
    )


def _give_up(s: Situation, revision: Revision, *, step: Step, lost: Lost, health: Health) -> Move:
    if lost.reason is Reason.INSUFFICIENT_GPU and step.sub is Sub.VERIFY and _fits_in_place_of_stable(s, revision):
        status = replace(s.status, step=replace(step, sub=Sub.STABLE_DOWN), downtime=Downtime(since=s.now))
        need = GpuNeed(resource=revision.gpu_resource, per_pod=revision.gpus_per_pod)
        return Move(
            status=status,
            reason=Reason.REPLACING,
            message=f"no room beside the serving version ({lost.message}): it is stopped first",
            notes=_downtime_note(need),
            requeue_at=s.after(1),
        )
    if s.spec.rollback_automatic:
        return begin_abort(s, reason=lost.reason, message=lost.message, evidence=lost.evidence)
    held = _wait(s, revision, step=step, health=health, reason=lost.reason, message=lost.message)
    return replace(held, stalled=True, warning=True, requeue_at=None)


def _fits_in_place_of_stable(s: Situation, revision: Revision) -> bool:
    """The scheduler found no room; stopping the old version helps only if it gives back as many GPUs as are needed."""
    stable = None if s.status.stable is None else record_of(s, s.status.stable)
    return (
        stable is not None
        and stable.gpu_resource == revision.gpu_resource
        and stable.gpus_per_pod * s.spec.replicas >= revision.gpus_per_pod * candidate_replicas(s)
    )


def _wait(s: Situation, revision: Revision, *, step: Step, health: Health, reason: Reason, message: str) -> Move:
    drain = drain_previous(s, s.status)
    waiting = s.after(1) if step.sub is Sub.STABLE_DOWN else None
    return Move(
        status=drain.status,
        reason=reason,
        message=f"revision {revision.revision}: {message}",
        effects=(
            *keep_stable(s, s.status),
            *keep_route(s, s.status),
            *keep_revision(s.observed, revision, replicas=candidate_replicas(s)),
            *drain.effects,
            *health.probes,
        ),
        requeue_at=earliest(step.deadline, health.look_again, drain.look_again, waiting),
    )

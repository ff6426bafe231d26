"""The start of a rollout: which way the candidate comes, whether there is room for it, and what is written first.

back to the version before, still warm     Switching at once: it was proven, no analysis
the first version                          Preparing, then straight to 100
Replace                                    Replacing: beside the old version, or after it where the GPUs are too few
BlueGreen, Canary, ABTest                  Preparing beside the old version, or InsufficientGPU
"""

from dataclasses import replace

from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import StrategyType
from lora_operator.core.build.revision import Revision
from lora_operator.core.plan import Note
from lora_operator.core.rollout.capacity import Fit, GpuNeed, fit_of
from lora_operator.core.rollout.children import keep_revision
from lora_operator.core.rollout.comparing import unknown_metric
from lora_operator.core.rollout.goal import Block, Goal, build_revision, need_of
from lora_operator.core.rollout.move import Move, Situation, earliest
from lora_operator.core.rollout.replace import downtime_note
from lora_operator.core.rollout.status import Downtime, Phase, RolloutStatus, Step, Sub
from lora_operator.core.rollout.steady import blocked
from lora_operator.core.rollout.traffic import unroutable, unshowable_step, untestable
from lora_operator.core.rollout.upkeep import (
    candidate_replicas,
    keep_candidate,
    keep_route,
    keep_stable,
    record_of,
    release_previous,
)
from lora_operator.core.rollout.weights import TOTAL

__all__ = ["begin_rollout"]


def begin_rollout(s: Situation, goal: Goal) -> Move:
    """Starts the goal's candidate, or says why it cannot be started."""
    back = _return_to_previous(s, goal)
    if back is not None:
        return back
    revision = build_revision(s.observed, goal)
    if isinstance(revision, Block):
        return blocked(s, revision)
    refused = _refused(s, revision)
    if refused is not None:
        return blocked(s, refused)
    need = need_of(s.observed, goal)
    fit = _fit(s, need)
    waits_for_previous = fit is Fit.AFTER_STABLE and s.status.previous is not None
    if fit is Fit.AFTER_PREVIOUS or waits_for_previous:
        message = "waiting for the GPU of the version before, which is stopped for it"
        released = replace(s, status=release_previous(s, s.status))
        return blocked(released, Block(reason=Reason.DRAINING, message=message, stalled=False))
    if need is not None and fit in (Fit.BUSY, Fit.NEVER):
        return blocked(s, _insufficient(s, need=need, fit=fit))
    sub = Sub.STABLE_DOWN if fit is Fit.AFTER_STABLE else Sub.VERIFY
    status = _opened(s, goal, sub=sub)
    started = replace(s, status=status)
    notes = _forced(goal) + (downtime_note(need) if sub is Sub.STABLE_DOWN else ())
    pods = candidate_replicas(started, status)
    effects = () if sub is Sub.STABLE_DOWN else keep_revision(s.observed, revision, replicas=pods)
    deadline = None if status.step is None else status.step.deadline
    return Move(
        status=status,
        reason=Reason.PREPARING if status.phase is Phase.PREPARING else Reason.REPLACING,
        message=f"revision {goal.revision} of adapter {goal.adapter} is being started",
        effects=(*keep_stable(started, status), *effects),
        notes=notes,
        requeue_at=earliest(deadline, s.after(1) if sub is Sub.STABLE_DOWN else None),
    )


def _beside(s: Situation) -> bool:
    """Whether the strategy needs both versions at once."""
    return s.status.stable is not None and s.spec.strategy.type is not StrategyType.REPLACE


def _opened(s: Situation, goal: Goal, *, sub: Sub) -> RolloutStatus:
    """The status with which a candidate begins; whatever was left of an older rollout is closed."""
    previous = s.status.previous
    again = previous is not None and previous.version.revision == goal.revision
    stepwise = _beside(s) and s.spec.strategy.type in (StrategyType.CANARY, StrategyType.AB_TEST)
    deadline = s.after(s.spec.progress_deadline_seconds)
    return replace(
        s.status,
        phase=Phase.PREPARING if s.status.stable is None or _beside(s) else Phase.REPLACING,
        candidate=goal.version,
        previous=None if again else previous,
        step=Step(sub=sub, started_at=s.now, deadline=deadline, scale=0 if stepwise else None),
        abort=None,
        pause=None,
        analysis=None,
        held_revision=s.status.held_revision if goal.held else "",
        downtime=Downtime(since=s.now) if sub is Sub.STABLE_DOWN else s.status.downtime,
        effective=_effective(s, goal),
    )


def _return_to_previous(s: Situation, goal: Goal) -> Move | None:
    """The version before still has all its pods: it was proven and served, so it gets all requests at once."""
    previous = s.status.previous
    if previous is None or previous.version.revision != goal.revision or s.status.stable is None:
        return None
    live = s.observed.workload(goal.revision)
    pods = max(1, s.spec.replicas)
    if live.ready < pods or live.replicas < pods or record_of(s, previous.version) is None:
        return None
    status = _opened(s, goal, sub=Sub.SHIFT)
    step = None if status.step is None else replace(status.step, scale=None)
    status = replace(status, phase=Phase.SWITCHING, step=step, candidate=replace(goal.version, target_weight=TOTAL))
    back = replace(s, status=status)
    return Move(
        status=status,
        reason=Reason.SWITCHING,
        message=f"revision {goal.revision} of adapter {goal.adapter} is still warm and takes all requests again",
        effects=(*keep_stable(back, status), *keep_candidate(back, status), *keep_route(back, status)),
        notes=_forced(goal),
        requeue_at=s.soon,
    )


def _fit(s: Situation, need: GpuNeed | None) -> Fit:
    """For the peak: a canary has all its pods before it gets everything."""
    stable = s.status.stable
    fit = fit_of(
        s.observed.supply,
        need=need,
        replicas=max(1, s.spec.replicas),
        has_stable=stable is not None and not _beside(s),
        has_previous=s.status.previous is not None,
    )
    if fit is Fit.AFTER_STABLE and stable is not None and record_of(s, stable) is None:
        return Fit.BUSY  # a version that is not stored could not be brought back
    return fit


def _insufficient(s: Situation, *, need: GpuNeed, fit: Fit) -> Block:
    supply = s.observed.supply
    total, free = (0, 0) if supply is None else (supply.total, supply.free)
    pods = max(1, s.spec.replicas)
    beside = _beside(s)
    never = fit is Fit.NEVER or (beside and supply is not None and supply.pods_at_all(need) < 2 * pods)
    asked = f"{pods} pod{'s' if pods > 1 else ''} with {need.per_pod} {need.resource} each"
    if beside:
        asked += f" beside the serving version ({s.spec.strategy.type} keeps both)"
    way = "lower replicas or runtime.resources, or add nodes" if never else "free GPUs or add nodes"
    if beside:
        way += ", or use strategy Replace, which stops the serving version first"
    reason, where = Reason.INSUFFICIENT_GPU, "the nodes that match have"
    if supply is not None and supply.out_of_reach:
        reason, where = Reason.VOLUME_NOT_SHAREABLE, "the node that holds the ReadWriteOnce claim has"
        way = f"put the artifact on ReadWriteMany storage ({supply.out_of_reach} more are on other nodes), or {way}"
    return Block(reason=reason, message=f"needs {asked}; {where} {total} in all, {free} free; {way}", stalled=never)


def _refused(s: Situation, revision: Revision) -> Block | None:
    """What the declared traffic can never bring to its pods."""
    message = unroutable(s.spec, revision)
    if message:
        return Block(reason=Reason.INVALID, message=message, stalled=True)
    lack = s.observed.lack
    if lack is not None:
        return Block(reason=lack.reason, message=lack.message, stalled=True)
    message = unknown_metric(s.spec) if _beside(s) else ""
    if message:
        return Block(reason=Reason.UNKNOWN_METRIC, message=message, stalled=True)
    message = untestable(s.spec) if _beside(s) else ""
    if message:
        return Block(reason=Reason.INVALID, message=message, stalled=True)
    steps = range(len(s.spec.strategy.steps)) if _beside(s) else ()
    message = next((said for index in steps if (said := unshowable_step(s.spec, index=index))), "")
    return Block(reason=Reason.WEIGHT_NOT_REACHABLE, message=message, stalled=True) if message else None


def _effective(s: Situation, goal: Goal) -> dict[str, object]:
    strategy = s.spec.strategy
    forced = {"forceDeploy": {"adapter": goal.adapter, "gates": list(goal.forced)}} if goal.forced else {}
    return forced | ({"steps": [dict(step.raw or {}) for step in strategy.steps]} if strategy.default_steps else {})


def _forced(goal: Goal) -> tuple[Note, ...]:
    if not goal.forced:
        return ()
    message = f"adapter {goal.adapter} is deployed although it failed: {', '.join(goal.forced)}"
    return (Note(type="Warning", reason=Reason.FORCE_DEPLOYED, message=message),)

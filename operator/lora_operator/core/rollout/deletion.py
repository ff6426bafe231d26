"""Deletion in the order that loses no request: route ► gone ► drain ► finalizer; the rest falls to garbage collection.

The pods live until the finalizer goes, because they hang on the resource. Nothing here can block for ever: a route that
somebody else keeps from going is given up after a while.
"""

from dataclasses import replace
from datetime import timedelta

from lora_operator.api.reasons import Reason
from lora_operator.core.plan import SetFinalizer
from lora_operator.core.rollout.children import delete_object
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.status import Phase, Step, Sub
from lora_operator.core.rollout.upkeep import SHORTEST_DRAIN_SECONDS

__all__ = ["delete"]

UNROUTE_PATIENCE = timedelta(seconds=120)
DEFAULT_DRAIN_SECONDS = 60


def delete(s: Situation) -> Move | None:
    """One step of the deletion; None when the resource is not being deleted."""
    if not s.observed.deleting:
        return None
    if not s.observed.has_finalizer:
        return Move(status=s.status, reason=Reason.DELETING, message="released")
    if s.status.phase is not Phase.DELETING or s.status.step is None:
        return _enter(s)
    return _unroute(s, s.status.step) if s.status.step.sub is Sub.UNROUTE else _drain(s, s.status.step)


def _enter(s: Situation) -> Move:
    status = replace(s.status, phase=Phase.DELETING, pause=None, step=Step(sub=Sub.UNROUTE, started_at=s.now))
    return _unroute(replace(s, status=status), Step(sub=Sub.UNROUTE, started_at=s.now))


def _unroute(s: Situation, step: Step) -> Move:
    routes = [route for route in (s.observed.route, *s.observed.other_routes) if route is not None and route.owned]
    stuck = s.now >= step.started_at + UNROUTE_PATIENCE
    if routes and not stuck:
        return Move(
            status=s.status,
            reason=Reason.DELETING,
            message="traffic is taken away",
            effects=tuple(delete_object(route.kind, obj) for route in routes for obj in route.objects),
            requeue_at=s.after(1),
        )
    if not _serving(s):
        return _release(s)
    deadline = s.after(max(SHORTEST_DRAIN_SECONDS, _drain_seconds(s)))
    status = replace(s.status, step=replace(step, sub=Sub.DRAIN, deadline=deadline))
    return Move(status=status, reason=Reason.DRAINING, message="streams finish before the pods go", requeue_at=deadline)


def _drain(s: Situation, step: Step) -> Move:
    if step.deadline is not None and s.now < step.deadline and _serving(s):
        return Move(
            status=s.status,
            reason=Reason.DRAINING,
            message="streams finish before the pods go",
            requeue_at=step.deadline,
        )
    return _release(s)


def _serving(s: Situation) -> bool:
    """Whether a pod may still have a request to finish."""
    return any(live.ready for live in s.observed.workloads.values())


def _drain_seconds(s: Situation) -> int:
    stable = s.status.stable
    record = None if stable is None else s.observed.records.get(stable.revision)
    if record is not None:
        return record.drain_seconds
    return DEFAULT_DRAIN_SECONDS if s.observed.spec is None else s.observed.spec.runtime.drain_seconds


def _release(s: Situation) -> Move:
    return Move(
        status=s.status,
        reason=Reason.DELETING,
        message="drained; the pods go now",
        effects=(SetFinalizer(present=False),),
    )

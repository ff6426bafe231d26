"""Nothing is being rolled out: the serving version is kept as declared, and what is wrong is said.

Phase Stable when the goal serves, Aborted when the goal was given up and is sticky, Pending when there is no goal to go
to. In each the old version goes on serving, hand edits are healed, the previous version drains, history is pruned.
"""

from dataclasses import replace

from lora_operator.api.reasons import Reason
from lora_operator.core.rollout.abort import given_up_message
from lora_operator.core.rollout.children import scale_to_zero
from lora_operator.core.rollout.goal import Block, Goal
from lora_operator.core.rollout.move import Move, Situation, earliest
from lora_operator.core.rollout.pods import TroubleKind
from lora_operator.core.rollout.status import Phase, RolloutStatus, Version
from lora_operator.core.rollout.upkeep import (
    drain_previous,
    keep_route,
    keep_stable,
    prune,
    release_previous,
    verdict_of,
)

__all__ = ["blocked", "given_up", "steady"]

LOOK_AGAIN_SECONDS = 15
CONFIRM_SECONDS = 2
_NO_EVENTS = frozenset(
    {
        Reason.INSUFFICIENT_GPU,
        Reason.INSUFFICIENT_MEMORY,
        Reason.DRAINING,
        Reason.GATEWAY_NOT_FOUND,
        Reason.ROUTER_LACKS_FEATURE,
        Reason.ROUTE_NOT_ACCEPTED,
    }
)


def steady(s: Situation, goal: Goal) -> Move:
    """The goal serves."""
    stable = s.status.stable
    assert stable is not None  # noqa: S101 (the goal is stable)
    status = replace(
        s.status,
        phase=Phase.STABLE,
        stable=replace(stable, adapter=goal.adapter),
        candidate=None,
        abort=None,
        step=None,
    )
    status = replace(status, pause=None, held_revision=status.held_revision if goal.held else "")
    if _lacks_room(s, stable):
        status = release_previous(s, status)
    kept = _keep(s, status)
    verdict = verdict_of(s, status)
    ready = s.observed.workload(stable.revision).ready
    if verdict is None or not verdict.confirmed:
        return replace(
            kept,
            reason=verdict.reason if verdict is not None and verdict.reason is not Reason.STABLE else Reason.PROMOTING,
            message=(verdict.message if verdict is not None else "") or "waiting for the route to be confirmed",
            stalled=verdict is not None and verdict.reason is Reason.INVALID,
            requeue_at=earliest(kept.requeue_at, s.after(CONFIRM_SECONDS)),
        )
    if ready < s.spec.replicas:
        return replace(kept, reason=Reason.CAPACITY_LOST, message=_capacity(s, stable, ready=ready))
    return replace(kept, ready=True, reason=Reason.STABLE, message=_serves(s, goal))


def _lacks_room(s: Situation, stable: Version) -> bool:
    """A pod of the serving version finds no node: more than a warm version before it is worth."""
    troubles = (pod.trouble for pod in s.observed.workload(stable.revision).staying)
    return any(trouble is not None and trouble.kind is TroubleKind.UNSCHEDULABLE for trouble in troubles)


def _capacity(s: Situation, stable: Version, *, ready: int) -> str:
    troubles = [pod.trouble.message for pod in s.observed.workload(stable.revision).staying if pod.trouble]
    said = f": {troubles[0]}" if troubles else ""
    return f"{ready} of {s.spec.replicas} pods of revision {stable.revision} are ready{said}"


def _serves(s: Situation, goal: Goal) -> str:
    message = f"revision {goal.revision} of adapter {goal.adapter} serves"
    if goal.held:
        message += f"; declared revision {s.status.held_revision} is held (rollback-to)"
    if "forceDeploy" in s.status.effective:
        message += f"; soft gates overridden by forceDeploy: {', '.join(s.status.effective['forceDeploy']['gates'])}"
    return message


def given_up(s: Situation) -> Move:
    """The goal was given up and does not start again by itself."""
    kept = _keep(s, replace(s.status, phase=Phase.ABORTED))
    abort = s.status.abort
    assert abort is not None  # noqa: S101 (asked only of an aborted goal)
    return replace(kept, reason=abort.reason, message=given_up_message(s.status), stalled=True, warning=True)


def blocked(s: Situation, block: Block) -> Move:
    """There is no goal, or it cannot be started; whatever serves goes on serving."""
    kept = _keep(s, replace(s.status, phase=Phase.PENDING))
    serving = "" if s.status.stable is None else f"; revision {s.status.stable.revision} goes on serving"
    return replace(
        kept,
        reason=block.reason,
        message=block.message + serving,
        stalled=block.stalled,
        warning=True,
        requeue_at=earliest(kept.requeue_at, s.after(LOOK_AGAIN_SECONDS) if _polls(block) else None),
    )


def _polls(block: Block) -> bool:
    """Nodes, other people's pods and Gateways send us no events."""
    return block.reason in _NO_EVENTS


def _keep(s: Situation, status: RolloutStatus) -> Move:
    drain = drain_previous(s, status)
    given = () if status.candidate is None else scale_to_zero(s.observed, status.candidate.revision)
    return Move(
        status=drain.status,
        reason=Reason.STABLE,
        message="",
        effects=(*keep_stable(s, status), *keep_route(s, status), *drain.effects, *given, *prune(s, drain.status)),
        requeue_at=drain.look_again,
    )

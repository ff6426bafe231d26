"""The parts of a weight, the same for a canary's step and for the split of a test: Scale ► WaitReady ► Shift ► Confirm.

Pods are there before their weight; each part is written down before it is done. `reason`: the phase's own.
"""

from dataclasses import replace

from lora_operator.api.reasons import Reason
from lora_operator.core.rollout.candidate import Proof, give_up, late, wait_for
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.status import Step, Sub
from lora_operator.core.rollout.upkeep import candidate_replicas, keep_route, verdict_of

__all__ = ["confirm", "scale", "shift"]


def scale(s: Situation, proof: Proof, *, reason: Reason) -> Move:
    """Pods first; the next part begins when their Deployment says so."""
    live = s.observed.workload(proof.revision.revision)
    if live.deployment is not None and live.replicas == candidate_replicas(s, s.status):
        return _goes_on(s, proof, step=replace(proof.step, sub=Sub.WAIT_READY), reason=reason)
    lost = late(s, proof)
    if lost is not None:
        return give_up(s, proof, lost=lost)
    return wait_for(s, proof, reason=reason, message=proof.step.message, until=s.after(1))


def shift(s: Situation, *, step: Step, weight: int | None, reason: Reason) -> Move:
    """All pods for the weight are proven: the intent, then the route."""
    candidate = s.status.candidate
    assert candidate is not None  # noqa: S101 (a weight is a candidate's)
    status = replace(s.status, candidate=replace(candidate, target_weight=weight), step=replace(step, sub=Sub.SHIFT))
    return Move(
        status=status,
        reason=reason,
        message=f"revision {candidate.revision}: {step.message}",
        effects=keep_route(replace(s, status=status), status),
        requeue_at=s.soon,
    )


def confirm(s: Situation, proof: Proof, *, reason: Reason) -> Move | None:
    """The route says it, then its controller does: None. Until then waits, or gives the candidate up."""
    verdict = verdict_of(s, s.status)
    if verdict is not None and verdict.confirmed:
        return None
    lost = proof.health.lost or late(s, proof)
    if lost is not None:
        return give_up(s, proof, lost=lost)
    if verdict is not None and verdict.written and proof.step.sub is Sub.SHIFT:
        return _goes_on(s, proof, step=replace(proof.step, sub=Sub.CONFIRM), reason=reason)
    said = "" if verdict is None or not verdict.message else f"; {verdict.message}"
    blocked = verdict is not None and verdict.reason in (Reason.GATEWAY_NOT_FOUND, Reason.ROUTE_NOT_ACCEPTED)
    shown = verdict.reason if verdict is not None and blocked else reason
    waiting = wait_for(s, proof, reason=shown, message=proof.step.message + said, until=s.soon)
    return replace(waiting, warning=blocked)


def _goes_on(s: Situation, proof: Proof, *, step: Step, reason: Reason) -> Move:
    return Move(
        status=replace(s.status, step=step),
        reason=reason,
        message=f"revision {proof.revision.revision}: {step.message}",
        effects=keep_route(s, s.status),
        requeue_at=s.now,
    )

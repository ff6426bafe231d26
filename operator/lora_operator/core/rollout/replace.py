"""Strategy Replace: the old version keeps every request until promote.py writes the route.

room for both      create candidate ► ready ► verified ► (promote.py: shift ► confirm ► drain old ► old to 0)
room for one only  status.downtime.since ► stable to 0 ► its pods gone ► candidate up ► verified ► (promote.py)
"""

from dataclasses import replace

from lora_operator.api.reasons import Reason
from lora_operator.core.build.revision import Revision
from lora_operator.core.plan import Note
from lora_operator.core.rollout.candidate import Proof, examine, give_up, late, wait_for
from lora_operator.core.rollout.capacity import GpuNeed
from lora_operator.core.rollout.children import keep_revision
from lora_operator.core.rollout.health import Lost
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.promote import begin_promotion
from lora_operator.core.rollout.status import Downtime, Step, Sub
from lora_operator.core.rollout.upkeep import candidate_replicas, keep_stable, record_of

__all__ = ["advance_replacement", "downtime_note"]


def downtime_note(need: GpuNeed | None) -> tuple[Note, ...]:
    """The Event that declares a downtime before it begins."""
    what = "GPU" if need is None else need.resource
    message = (
        f"no {what} is free beside the serving version: it is stopped first, requests fail until the new one is ready"
    )
    return (Note(type="Warning", reason=Reason.REPLACING, message=message),)


def advance_replacement(s: Situation) -> Move:
    """One step of Replacing."""
    proof = examine(s)
    if isinstance(proof, Move):
        return proof
    if proof.step.sub is Sub.STABLE_DOWN:
        return _stable_down(s, proof.revision, step=proof.step)
    if proof.health.verified and proof.health.lost is None:
        return begin_promotion(s, proof.revision)
    lost = proof.health.lost or late(s, proof)
    if lost is not None:
        return _give_up(s, proof, lost=lost)
    return wait_for(s, proof, reason=Reason.REPLACING, message=proof.health.message)


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
        effects=keep_revision(s.observed, revision, replicas=candidate_replicas(s, status)),
        requeue_at=step.deadline,
    )


def _give_up(s: Situation, proof: Proof, *, lost: Lost) -> Move:
    revision, step = proof.revision, proof.step
    if lost.reason is Reason.INSUFFICIENT_GPU and step.sub is Sub.VERIFY and _fits_in_place_of_stable(s, revision):
        status = replace(s.status, step=replace(step, sub=Sub.STABLE_DOWN), downtime=Downtime(since=s.now))
        need = GpuNeed(resource=revision.gpu_resource, per_pod=revision.gpus_per_pod)
        return Move(
            status=status,
            reason=Reason.REPLACING,
            message=f"no room beside the serving version ({lost.message}): it is stopped first",
            notes=downtime_note(need),
            requeue_at=s.after(1),
        )
    return give_up(s, proof, lost=lost)


def _fits_in_place_of_stable(s: Situation, revision: Revision) -> bool:
    """The scheduler found no room; stopping the old version helps only if it gives back as many GPUs as are needed."""
    stable = None if s.status.stable is None else record_of(s, s.status.stable)
    return (
        stable is not None
        and stable.gpu_resource == revision.gpu_resource
        and stable.gpus_per_pod * s.spec.replicas >= revision.gpus_per_pod * candidate_replicas(s, s.status)
    )

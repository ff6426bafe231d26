"""The candidate under examination, whatever the strategy: proven, waited for, or given up.

    examine ─► wait_for (not yet) │ give_up (lost, or late) │ proven

The old version keeps what it has while the candidate is examined.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from lora_operator.api.reasons import Reason
from lora_operator.core.build.revision import Revision
from lora_operator.core.rollout.abort import begin_abort
from lora_operator.core.rollout.children import keep_revision
from lora_operator.core.rollout.goal import Block, Goal, build_revision
from lora_operator.core.rollout.health import Health, Lost, judge_candidate
from lora_operator.core.rollout.move import Move, Situation, earliest
from lora_operator.core.rollout.status import Step, Sub
from lora_operator.core.rollout.upkeep import candidate_replicas, drain_previous, keep_route, keep_stable

__all__ = ["Proof", "examine", "give_up", "late", "until_proven", "wait_for"]

# Elsewhere a deadline is the end of a wait that somebody asked for, and not a candidate that is late.
_WITH_PROGRESS_DEADLINE = frozenset(
    {Sub.VERIFY, Sub.CANDIDATE_UP, Sub.STABLE_DOWN, Sub.SCALE, Sub.WAIT_READY, Sub.SHIFT, Sub.CONFIRM}
)


@dataclass(frozen=True)
class Proof:
    """What is known of the candidate."""

    revision: Revision
    health: Health
    step: Step


def examine(s: Situation) -> Proof | Move:
    """Its frozen revision and its health; the abort when it can no longer be built."""
    candidate, step = s.status.candidate, s.status.step
    assert candidate is not None  # noqa: S101 (a phase that examines has a candidate and a step)
    assert step is not None  # noqa: S101
    goal = Goal(revision=candidate.revision, adapter=candidate.adapter, artifact_digest=candidate.artifact_digest)
    revision = build_revision(s.observed, goal)
    if isinstance(revision, Block):
        return begin_abort(s, reason=revision.reason, message=revision.message)
    health = judge_candidate(s.observed, revision, replicas=candidate_replicas(s, s.status), now=s.now)
    return Proof(revision=revision, health=health, step=step)


def until_proven(s: Situation, proof: Proof, *, reason: Reason) -> Move | None:
    """Waits for the candidate or gives it up; None once all its pods are ready and answered as validated."""
    if proof.health.verified and proof.health.lost is None:
        return None  # late or not: where no rollback is automatic it may have been waited for beyond its deadline
    lost = proof.health.lost or late(s, proof)
    if lost is not None:
        return give_up(s, proof, lost=lost)
    return wait_for(s, proof, reason=reason, message=proof.health.message)


def late(s: Situation, proof: Proof) -> Lost | None:
    """The progress deadline is over."""
    step = proof.step
    if step.sub not in _WITH_PROGRESS_DEADLINE or step.deadline is None or s.now < step.deadline:
        return None
    return Lost(
        reason=Reason.PROGRESS_DEADLINE_EXCEEDED,
        message=f"not ready within {s.spec.progress_deadline_seconds} s: {proof.health.message}",
        evidence={},
    )


def give_up(s: Situation, proof: Proof, *, lost: Lost) -> Move:
    """Aborts; where rollback.automatic is false a person has to ask for it."""
    if s.spec.rollback_automatic:
        return begin_abort(s, reason=lost.reason, message=lost.message, evidence=lost.evidence)
    held = wait_for(s, proof, reason=lost.reason, message=lost.message)
    return replace(held, stalled=True, warning=True, requeue_at=None)


def wait_for(s: Situation, proof: Proof, *, reason: Reason, message: str, until: datetime | None = None) -> Move:
    """Both versions and the route as status says; ready pods are asked. `until`: when to look again at the latest."""
    drain = drain_previous(s, s.status)
    return Move(
        status=drain.status,
        reason=reason,
        message=f"revision {proof.revision.revision}: {message}",
        effects=(
            *keep_stable(s, s.status),
            *keep_revision(s.observed, proof.revision, replicas=candidate_replicas(s, s.status)),
            *keep_route(s, s.status),
            *drain.effects,
            *proof.health.probes,
        ),
        requeue_at=earliest(proof.step.deadline, proof.health.look_again, drain.look_again, until),
    )

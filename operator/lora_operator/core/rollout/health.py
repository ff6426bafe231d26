"""Is a candidate good, not yet good, or lost? Judged from its pods, what they answered, and the clock.

Not asked of a version that was promoted: a later pod of a proven revision needs only its init step and probes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lora_operator.api.reasons import Reason
from lora_operator.core.build.revision import Revision
from lora_operator.core.plan import ProbePod
from lora_operator.core.rollout.observed import Observed
from lora_operator.core.rollout.pods import Pod, TroubleKind

__all__ = ["Health", "Lost", "judge_candidate"]

IMAGE_GRACE = timedelta(seconds=60)
CRASHES = 3


@dataclass(frozen=True)
class Lost:
    """Why the candidate is given up."""

    reason: Reason
    message: str
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Health:
    """What is known. `probes`: ready pods to be asked; `look_again`: when a patience ends."""

    verified: bool
    lost: Lost | None
    message: str
    probes: tuple[ProbePod, ...]
    look_again: datetime | None


def judge_candidate(observed: Observed, revision: Revision, *, replicas: int, now: datetime) -> Health:
    """Whether all `replicas` pods of the candidate are ready and answered as the validated model."""
    assert observed.spec is not None  # noqa: S101 (only valid specs get this far)
    patience = timedelta(seconds=observed.spec.unschedulable_seconds)
    pods = observed.workload(revision.revision).staying
    ready = [pod for pod in pods if pod.ready]
    passed = [pod for pod in ready if (answer := observed.answers.get(pod.uid)) and answer.passed]
    ends = [end for pod in pods if (end := _patience_end(pod, patience=patience)) and end > now]
    return Health(
        verified=len(passed) >= replicas and len(passed) == len(ready),
        lost=_wrong_answer(observed, ready) or _lost_pod(pods, revision=revision, patience=patience, now=now),
        message=_message(pods, ready=len(ready), passed=len(passed), replicas=replicas),
        probes=tuple(_probe(observed, revision, pod) for pod in ready if pod.ip and pod.uid not in observed.answers),
        look_again=min(ends, default=None),
    )


def _message(pods: tuple[Pod, ...], *, ready: int, passed: int, replicas: int) -> str:
    troubles = [pod.trouble.message for pod in pods if pod.trouble]
    said = f"; {troubles[0]}" if troubles else ""
    return f"{ready} of {replicas} pods ready, {passed} verified{said}"


def _wrong_answer(observed: Observed, ready: list[Pod]) -> Lost | None:
    for pod in ready:
        answer = observed.answers.get(pod.uid)
        if answer is not None and not answer.passed:
            return Lost(reason=answer.reason, message=f"pod {pod.name}: {answer.message}", evidence={"pod": pod.name})
    return None


def _lost_pod(pods: tuple[Pod, ...], *, revision: Revision, patience: timedelta, now: datetime) -> Lost | None:
    for pod in pods:
        trouble = pod.trouble
        end = _patience_end(pod, patience=patience)
        if trouble is None or end is None or now < end:
            continue
        return Lost(
            reason=_reason(trouble.kind, gpus=revision.gpus_per_pod),
            message=f"pod {pod.name}: {trouble.message}",
            evidence={"pod": pod.name, "restarts": trouble.restarts},
        )
    return None


def _reason(kind: TroubleKind, *, gpus: int) -> Reason:
    if kind is TroubleKind.UNSCHEDULABLE:
        return Reason.INSUFFICIENT_GPU if gpus else Reason.POD_UNSCHEDULABLE
    if kind in (TroubleKind.IMAGE, TroubleKind.IMAGE_NEVER):
        return Reason.IMAGE_NOT_AVAILABLE
    return Reason.POD_FAILED


def _patience_end(pod: Pod, *, patience: timedelta) -> datetime | None:
    """When this pod's trouble is no longer waited for; None: there is no trouble, or only the deadline ends it."""
    trouble = pod.trouble
    if trouble is None or pod.created is None:
        return None
    match trouble.kind:
        case TroubleKind.IMAGE_NEVER | TroubleKind.REFUSED:
            return pod.created
        case TroubleKind.IMAGE | TroubleKind.CONFIG:
            return pod.created + IMAGE_GRACE
        case TroubleKind.UNSCHEDULABLE:
            return (trouble.since or pod.created) + patience
        case TroubleKind.CRASH:
            return pod.created if trouble.restarts >= CRASHES else None


def _probe(observed: Observed, revision: Revision, pod: Pod) -> ProbePod:
    assert observed.spec is not None  # noqa: S101 (only valid specs get this far)
    health = observed.spec.health_check
    return ProbePod(
        pod=pod.name,
        uid=pod.uid,
        address=f"http://{pod.ip}:{revision.port}",
        model=revision.served_model_name,
        probes=revision.probes,
        timeout_seconds=health.timeout_seconds or observed.settings.health_timeout_seconds,
        retries=health.retries or observed.settings.health_retries,
    )

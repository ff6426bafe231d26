"""Serving pods as the state machine sees them: ready or not, and if not, what the kubelet or scheduler says about it.

Not a judgement: how long a trouble may last is decided in health.py.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from lora_operator.api.names import LABEL_IN_SERVICE, LABEL_REVISION
from lora_operator.core.rollout.stored import moment

__all__ = ["Pod", "Trouble", "TroubleKind", "parse_pod"]

_IMAGE_NEVER = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_IMAGE_MAYBE = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_REFUSED_EXIT = 2
_LINE_LENGTH = 300


class TroubleKind(StrEnum):
    """What keeps a pod from serving."""

    UNSCHEDULABLE = "unschedulable"
    IMAGE_NEVER = "image can never be pulled"
    IMAGE = "image not pulled"
    CONFIG = "container not created"
    CRASH = "container fails"
    REFUSED = "model refused"


@dataclass(frozen=True)
class Trouble:
    """One trouble in words that a person can use."""

    kind: TroubleKind
    message: str
    restarts: int = 0
    since: datetime | None = None  # None: as long as the pod exists


@dataclass(frozen=True)
class Pod:
    """One serving pod."""

    name: str
    uid: str
    revision: str
    ip: str
    ready: bool
    leaving: bool  # being deleted: it answers, but gets no new work
    created: datetime | None
    trouble: Trouble | None
    in_service: bool = False  # carries the label by which the plain Service selects pods during a canary


def parse_pod(raw: Mapping[str, Any]) -> Pod:
    """A pod of ours; missing parts of a fresh pod read as not ready."""
    meta, status = raw["metadata"], raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    leaving = "deletionTimestamp" in meta
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        revision=(meta.get("labels") or {}).get(LABEL_REVISION, ""),
        ip=status.get("podIP", ""),
        ready=conditions.get("Ready", {}).get("status") == "True" and not leaving,
        leaving=leaving,
        created=moment(meta.get("creationTimestamp")),
        trouble=None if leaving else _trouble(status, conditions),
        in_service=(meta.get("labels") or {}).get(LABEL_IN_SERVICE) == "true",
    )


def _trouble(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> Trouble | None:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Trouble(
            kind=TroubleKind.UNSCHEDULABLE,
            message=str(scheduled.get("message", "")),
            since=moment(scheduled.get("lastTransitionTime")),
        )
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return next((trouble for container in containers if (trouble := _container_trouble(container))), None)


def _container_trouble(container: Mapping[str, Any]) -> Trouble | None:
    name, restarts = container["name"], int(container.get("restartCount", 0))
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    said = str(waiting.get("message", ""))
    if reason in _IMAGE_NEVER:
        return Trouble(kind=TroubleKind.IMAGE_NEVER, message=f"{name}: {reason}: {container.get('image')}: {said}")
    if reason in _IMAGE_MAYBE:
        return Trouble(kind=TroubleKind.IMAGE, message=f"{name}: {reason}: {container.get('image')}: {said}")
    if reason in _CONFIG:
        return Trouble(kind=TroubleKind.CONFIG, message=f"{name}: {reason}: {said}")
    ended = _ended(container)
    if ended is None:
        return None
    if ended.get("exitCode") == _REFUSED_EXIT and name in ("verify", "copy"):
        return Trouble(kind=TroubleKind.REFUSED, message=f"{name}: {_last_line(ended)}", restarts=restarts)
    return Trouble(
        kind=TroubleKind.CRASH,
        message=f"{name} ended with {ended.get('reason', 'an error')} (exit {ended.get('exitCode')}), "
        f"{restarts} restarts: {_last_line(ended)}",
        restarts=restarts,
    )


def _ended(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How the container ended, unless it ended well or runs again and is ready."""
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        ended = state.get("terminated")
        if ended and ended.get("exitCode") != 0:
            return None if container.get("ready") else ended
    return None


def _last_line(ended: Mapping[str, Any]) -> str:
    """The last line a container left: the kubelet's copy of its log, or our own Jobs' JSON with its sentence."""
    lines = [line.strip() for line in str(ended.get("message") or "").splitlines() if line.strip()]
    if not lines:
        return "it left no message"
    return _sentence(lines[-1])[:_LINE_LENGTH]


def _sentence(line: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        said = json.loads(line)
    except json.JSONDecodeError:
        return line
    return f"{said.get('reason', '')}: {said.get('message', '')}".strip(": ") or line


def ready_count(pods: Iterable[Pod]) -> int:
    """How many of them serve."""
    return sum(pod.ready for pod in pods)

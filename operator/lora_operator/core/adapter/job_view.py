"""A Job and its pod as one small fact: what is it doing, or how did it end. Pure reading of raw objects."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ContainerEnd", "JobView", "view_job"]

PULL_PROBLEMS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}
)


@dataclass(frozen=True)
class ContainerEnd:
    """How a container ended; `message` is its parsed termination message, None when it is not JSON of ours."""

    exit_code: int
    reason: str  # OOMKilled, Error, Completed …
    message: Mapping[str, Any] | None
    text: str  # the termination message as written


@dataclass(frozen=True)
class JobView:
    """What is seen of an attempt. A running Job has `finished` False and perhaps a complaint of kubelet or scheduler."""

    name: str
    uid: str
    finished: bool
    succeeded: bool
    failure_reason: str  # Job condition Failed: DeadlineExceeded, PodFailurePolicy, BackoffLimitExceeded …
    pod_seen: bool
    pod_running: bool  # the main container runs, or ran
    image_problem: str  # kubelet's words, empty when there is none
    unschedulable: str  # scheduler's words, empty when there is none
    disrupted: bool  # evicted, preempted, node lost
    suspended: bool  # by Kueue or by hand: not ours to fight
    ends: Mapping[str, ContainerEnd] = field(default_factory=dict)  # by container name


def view_job(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> JobView:
    """The Job with the newest of its pods."""
    status = job.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", []) if c.get("status") == "True"}
    newest = max(pods, key=lambda pod: pod["metadata"].get("creationTimestamp", ""), default=None)
    pod_status = (newest or {}).get("status", {})
    statuses = [*pod_status.get("initContainerStatuses", []), *pod_status.get("containerStatuses", [])]
    return JobView(
        name=job["metadata"]["name"],
        uid=job["metadata"]["uid"],
        finished="Complete" in conditions or "Failed" in conditions,
        succeeded="Complete" in conditions,
        failure_reason=str(conditions.get("Failed", {}).get("reason", "")),
        pod_seen=newest is not None,
        pod_running=any("waiting" not in s.get("state", {}) for s in pod_status.get("containerStatuses", [])),
        image_problem=_image_problem(statuses),
        unschedulable=_unschedulable(pod_status),
        disrupted=_disrupted(pod_status),
        suspended=bool(job.get("spec", {}).get("suspend")),
        ends={s["name"]: end for s in statuses if (end := _end(s)) is not None},
    )


def _end(status: Mapping[str, Any]) -> ContainerEnd | None:
    terminated = status.get("state", {}).get("terminated")
    if terminated is None:
        return None
    text = str(terminated.get("message", ""))
    return ContainerEnd(
        exit_code=int(terminated.get("exitCode", -1)),
        reason=str(terminated.get("reason", "")),
        message=_parse(text),
        text=text,
    )


def _parse(text: str) -> Mapping[str, Any] | None:
    try:
        message = json.loads(text)
    except ValueError:
        return None
    return message if isinstance(message, dict) and message.get("schemaVersion") == 1 else None


def _image_problem(statuses: Sequence[Mapping[str, Any]]) -> str:
    for status in statuses:
        waiting = status.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in PULL_PROBLEMS:
            return f"{status.get('image')}: {waiting.get('message') or waiting['reason']}"
    return ""


def _unschedulable(pod_status: Mapping[str, Any]) -> str:
    for condition in pod_status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return str(condition.get("message", "no node fits"))
    return ""


def _disrupted(pod_status: Mapping[str, Any]) -> bool:
    if pod_status.get("reason") in {"Evicted", "NodeLost", "Shutdown", "Preempting"}:
        return True
    return any(
        c.get("type") == "DisruptionTarget" and c.get("status") == "True" for c in pod_status.get("conditions", [])
    )

"""What the merge and validate Jobs say while they work: log lines, and the progress lines among them.

    pods of the Job ─► fetch ─► merge          (containers, one after another)
    pods of the Job ─► validate
A line of progress is JSON `{time, stage, done, total, unit, etaSeconds}`, one a second; every other line is for people.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from lora_client.api import Api, Json, Missing, path_of
from lora_client.errors import Refused, Unavailable
from lora_client.names import POD

__all__ = ["LogLine", "Progress", "parse_progress", "pod_lines"]

LOOK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Progress:
    """How far a stage is. `unit` is B for bytes, otherwise a word; eta None: not known yet."""

    time: str
    stage: str
    done: int
    total: int
    unit: str
    eta_seconds: float | None

    @property
    def share(self) -> float:
        """0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 1.0


@dataclass(frozen=True)
class LogLine:
    """One line of a container. `progress` is None where the line is for people."""

    pod: str
    container: str
    text: str
    progress: Progress | None


def parse_progress(line: str) -> Progress | None:
    """The progress that a line tells, or None."""
    if not line.startswith("{"):
        return None
    try:
        raw = json.loads(line)
        return Progress(
            time=str(raw["time"]),
            stage=str(raw["stage"]),
            done=int(raw["done"]),
            total=int(raw["total"]),
            unit=str(raw["unit"]),
            eta_seconds=raw.get("etaSeconds"),
        )
    except (ValueError, KeyError, TypeError):
        return None


async def pod_lines(
    api: Api, *, namespace: str, pod: str, container: str, follow: bool, tail: int | None = None
) -> AsyncIterator[LogLine]:
    """Lines of one container that has started; with `follow` until it ends."""
    query = (
        {"container": container}
        | ({"follow": "true"} if follow else {})
        | ({"tailLines": str(tail)} if tail is not None else {})
    )
    async with api.lines(f"{path_of(POD, namespace=namespace, name=pod)}/log", query=query) as lines:
        async for line in lines:
            yield LogLine(pod, container, line, parse_progress(line))


async def job_lines(
    api: Api, *, namespace: str, job: str, follow: bool, tail: int | None = None
) -> AsyncIterator[LogLine]:
    """All containers of the Job's newest pod, in the order in which they run; with `follow` from its start to its end."""
    told: set[str] = set()
    seen = False
    while True:
        pod = await _newest_pod(api, namespace=namespace, job=job)
        if pod is not None:
            seen = True
            for container in _started(pod):
                if container in told:
                    continue
                told.add(container)
                name = str(pod["metadata"]["name"])
                async for line in _whatever_is_left(
                    api, namespace=namespace, pod=name, container=container, follow=follow, tail=tail
                ):
                    yield line
        gone = pod is None and seen
        if not follow or gone or (pod is not None and _over(pod)):
            return
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def _whatever_is_left(
    api: Api, *, namespace: str, pod: str, container: str, follow: bool, tail: int | None
) -> AsyncIterator[LogLine]:
    """A pod that goes away takes its log along: how the Job ended is told by the adapter's status, not here."""
    try:
        async for line in pod_lines(api, namespace=namespace, pod=pod, container=container, follow=follow, tail=tail):
            yield line
    except (Missing, Refused, Unavailable):
        return


async def _newest_pod(api: Api, *, namespace: str, job: str) -> Json | None:
    pods = await api.list(POD, namespace=namespace, labels=f"batch.kubernetes.io/job-name={job}")
    return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


def _containers(pod: Mapping[str, Any]) -> list[str]:
    spec = pod["spec"]
    return [str(one["name"]) for one in [*(spec.get("initContainers") or ()), *spec["containers"]]]


def _started(pod: Mapping[str, Any]) -> list[str]:
    status = pod.get("status") or {}
    entries = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    started = {one["name"] for one in entries if {"running", "terminated"} & set(one.get("state") or {})}
    return [name for name in _containers(pod) if name in started]


def _over(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}

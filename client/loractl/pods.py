"""What a pod or a Job says about itself, in words: the last links of the chain that `loractl explain` shows. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loractl.columns import one_line
from loractl.objects import status_of

__all__ = ["Trouble", "job_ended", "pod_summary", "trouble_of_pod"]

Raw = Mapping[str, Any]
_LONGEST = 400
_WAITS = {
    "ErrImagePull": "image",
    "ImagePullBackOff": "image",
    "InvalidImageName": "image",
    "ErrImageNeverPull": "image",
    "RegistryUnavailable": "image",
    "CreateContainerConfigError": "config",
    "CreateContainerError": "config",
    "RunContainerError": "config",
    "CrashLoopBackOff": "crash",
}
_MENDS = {
    "unschedulable": "Add capacity, or change resources, nodeSelector or tolerations.",
    "image": "Correct the image's name or tag, or its pull secret.",
    "config": "Correct what the container refers to (Secret, ConfigMap, volume); the message names it.",
    "memory": "Give it more memory, or use a smaller model.",
    "crash": "Read its log with `loractl logs NAME` and mend image, arguments or resources.",
    "refused": "",  # the words of the refusal say it
    "evicted": "Free the node of what it lacks (its conditions say what), or add a node.",
}


@dataclass(frozen=True)
class Trouble:
    """What keeps a pod from doing its work. `kind` is a key of the mends above."""

    kind: str
    words: str

    def mend(self, name: str) -> str:
        """What to do about it; empty where the words say it themselves."""
        return _MENDS[self.kind].replace("NAME", name)


def trouble_of_pod(pod: Raw) -> Trouble | None:
    """The first thing that is wrong; None of a pod that is fine or still starting."""
    status = status_of(pod)
    if status.get("reason") in {"Evicted", "NodeLost", "Shutdown", "Preempting"}:
        return Trouble("evicted", f"was evicted: {one_line(str(status.get('message', '')))}"[:_LONGEST])
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("reason") == "Unschedulable":
            return Trouble("unschedulable", f"no node takes it: {one_line(str(one.get('message', '')))}"[:_LONGEST])
    return next((trouble for one in _containers(status) if (trouble := _trouble(one))), None)


def pod_summary(pod: Raw) -> str:
    """What it does when nothing is wrong."""
    status = status_of(pod)
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return "is leaving"
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    if ready:
        return "is ready"
    running = [one["name"] for one in _containers(status) if "running" in (one.get("state") or {})]
    if running:
        return f"runs container {running[0]}" + ("" if str(status.get("phase")) != "Running" else ", not ready yet")
    return {"Pending": "is starting", "Succeeded": "ended well", "Failed": "failed"}.get(
        str(status.get("phase")), "is starting"
    )


def job_ended(job: Raw) -> str:
    """How a Job ended, in words; empty while it runs."""
    for one in status_of(job).get("conditions") or ():
        if one.get("status") == "True" and one.get("type") in {"Complete", "SuccessCriteriaMet"}:
            return "ended well"
        if one.get("status") == "True" and one.get("type") == "Failed":
            reason = str(one.get("reason", ""))
            return {"DeadlineExceeded": "ran longer than its timeoutSeconds"}.get(reason, f"failed ({reason})")
    return ""


def _containers(status: Raw) -> Sequence[Raw]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _trouble(container: Raw) -> Trouble | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    kind = _WAITS.get(str(waiting.get("reason", "")))
    name = container.get("name")
    if kind in {"image", "config"}:
        said = one_line(str(waiting.get("message") or ""))
        what = f"{waiting['reason']}: {container.get('image')}" if kind == "image" else str(waiting["reason"])
        return Trouble(kind, f"container {name} cannot start: {what}: {said}"[:_LONGEST])
    ended = next(_ends(container), None)
    if ended is None:
        return None
    code, reason = ended.get("exitCode"), str(ended.get("reason", ""))
    if reason == "OOMKilled" or code == 137:
        return Trouble("memory", f"container {name} was killed at its memory limit")
    kind = "refused" if code in {2, 3} and _own(ended) else "crash"
    return Trouble(kind, f"container {name} ended with exit code {code}: {_last_words(ended)}"[:_LONGEST])


def _ends(container: Raw) -> Iterator[Raw]:
    """Ends that went wrong; of a container that is ready again none counts."""
    if container.get("ready"):
        return
    for state in ("state", "lastState"):
        ended = (container.get(state) or {}).get("terminated")
        if ended and ended.get("exitCode") != 0:
            yield ended


def _own(ended: Raw) -> Raw | None:
    """Our own Jobs' termination message."""
    try:
        said = json.loads(str(ended.get("message") or ""))
    except ValueError:
        return None
    return said if isinstance(said, dict) and "outcome" in said else None


def _last_words(ended: Raw) -> str:
    own = _own(ended)
    if own is not None:
        return f"{own.get('reason', '')}: {one_line(str(own.get('message', '')))}"
    lines = [line.strip() for line in str(ended.get("message") or "").splitlines() if line.strip()]
    return lines[-1] if lines else "it left no message"

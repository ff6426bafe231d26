"""Why something is not Ready, as a chain of sentences from what a person asked for to what stands in the way. Pure.

    LoRADeployment ──► LoRAAdapter it names ──► Job of the stage that counts ──► pod of that Job
          └──────────► revision on its way  ──► its pods

The last link that says something is the cause; what to do is the mend of its reason (docs/troubleshooting.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_client.names import LABEL_DEPLOYMENT, LABEL_REVISION
from loractl.columns import one_line
from loractl.mends import mend_of
from loractl.objects import (
    condition,
    condition_is,
    label,
    message_of,
    name_of,
    newest,
    reason_of,
    seen_by_operator,
    status_of,
)
from loractl.pods import job_ended, pod_summary, trouble_of_pod

__all__ = ["Explanation", "Link", "Seen", "current_job", "explain"]

Raw = Mapping[str, Any]
LABEL_JOB = "batch.kubernetes.io/job-name"
# Beside what the reason's own mend says, these depend on what else is known.
_NO_OPERATOR = "See whether the operator runs: `loractl doctor`."
_SERVED_PODS = frozenset(
    {"Preparing", "Replacing", "Stepping", "Switching", "Promoting", "Aborting", "PodFailed", "InsufficientGPU",
     "ProgressDeadlineExceeded", "WrongModelAnswers", "CapacityLost", "ImageNotAvailable", "PodUnschedulable"}
)  # fmt: skip
"""Reasons that a look at the serving pods explains further."""


@dataclass(frozen=True)
class Seen:
    """What was read of the cluster. Lists may be empty where the reader may not see them."""

    deployment: Raw | None = None  # None: the question is about an adapter, or there is no such deployment
    adapter: Raw | None = None  # None: there is no such adapter
    jobs: Sequence[Raw] = ()
    pods: Sequence[Raw] = ()
    events: Sequence[Raw] = ()


@dataclass(frozen=True)
class Link:
    """One object and what is said about it. `trouble` False: it is fine, or simply at work."""

    subject: str
    sentence: str
    trouble: bool


@dataclass(frozen=True)
class Explanation:
    """The chain, and what to do; `todo` is empty when there is nothing to do but wait or be glad."""

    ready: bool
    links: tuple[Link, ...]
    todo: tuple[str, ...] = field(default_factory=tuple)

    @property
    def cause(self) -> Link:
        """The last link with trouble; of a healthy chain the first."""
        return next((link for link in reversed(self.links) if link.trouble), self.links[0])


def explain(seen: Seen) -> Explanation:
    """The chain of what was seen. At least one of deployment and adapter is there."""
    if seen.deployment is not None:
        return _of_deployment(seen, seen.deployment)
    assert seen.adapter is not None  # noqa: S101 (the caller found one of the two)
    return _of_adapter(seen, seen.adapter)


def _of_deployment(seen: Seen, deployment: Raw) -> Explanation:
    name = name_of(deployment)
    subject = f"LoRADeployment {name}"
    if not seen_by_operator(deployment):
        return _unseen(subject, deployment)
    if condition_is(deployment, "Ready"):
        return Explanation(True, (Link(subject, f"is Ready: {one_line(message_of(deployment))}", trouble=False),))
    reason = reason_of(deployment)
    first = Link(subject, _not_ready(deployment), trouble=True)
    if reason in {"AdapterNotReady", "AdapterNotFound"}:
        return _over_adapter(seen, deployment, first, reason)
    mend = mend_of(reason, name=name)
    links = [first, *(_serving_links(seen, deployment, reason))]
    return Explanation(False, tuple(links), _todo(links, seen, mend_text=mend.todo, name=name))


def _over_adapter(seen: Seen, deployment: Raw, first: Link, reason: str) -> Explanation:
    wanted = str((deployment.get("spec", {}).get("adapterRef") or {}).get("name", ""))
    if seen.adapter is None:
        missing = Link(
            f"LoRAAdapter {wanted}", f"is not in namespace {deployment['metadata']['namespace']}", trouble=True
        )
        return Explanation(False, (first, missing), (mend_of("AdapterNotFound", name=wanted).todo,))
    rest = _of_adapter(seen, seen.adapter)
    if rest.ready:
        waiting = Link(first.subject, "has not been decided anew since; it will be", trouble=False)
        return Explanation(False, (first, *rest.links, waiting))
    forced = mend_of(reason, name=wanted).todo if reason_of(seen.adapter) == "GatesFailed" else ""
    todo = (*rest.todo, forced) if forced else rest.todo
    return Explanation(False, (first, *rest.links), todo)


def _of_adapter(seen: Seen, adapter: Raw) -> Explanation:
    name = name_of(adapter)
    subject = f"LoRAAdapter {name}"
    if not seen_by_operator(adapter):
        return _unseen(subject, adapter)
    reason = reason_of(adapter)
    if condition_is(adapter, "Ready"):
        mend = mend_of(reason, name=name)
        sentence = f"is Ready ({reason}): {one_line(message_of(adapter))}"
        return Explanation(True, (Link(subject, sentence, trouble=False),), (mend.todo,) if mend.todo else ())
    stage, record = _stage_of(adapter)
    refused = record.get("result") == "Refused"
    links = [Link(subject, _not_ready(adapter), trouble=True), *_job_links(seen, record, stage=stage)]
    mend = mend_of(reason, name=name, refused=refused)
    return Explanation(False, tuple(links), _todo(links, seen, mend_text=mend.todo, name=name))


def _unseen(subject: str, raw: Raw) -> Explanation:
    what = "a new spec was stored and" if status_of(raw) else "it was created and"
    return Explanation(
        False, (Link(subject, f"{what} the operator has not looked at it", trouble=True),), (_NO_OPERATOR,)
    )


def _not_ready(raw: Raw) -> str:
    phase, reason = str(status_of(raw).get("phase", "")), reason_of(raw)
    where = phase if phase == reason else f"{phase}, {reason}"
    heals = "" if condition_is(raw, "Stalled") else "; the operator goes on by itself"
    return f"is not Ready ({where}): {one_line(message_of(raw))}{heals}"


def current_job(adapter: Raw) -> str:
    """Name of the Job that counts now; empty before there is one."""
    return str(_stage_of(adapter)[1].get("name", ""))


def _stage_of(adapter: Raw) -> tuple[str, Raw]:
    """The stage whose Job counts now: validate once there is an artifact, else merge."""
    jobs: Raw = status_of(adapter).get("jobs") or {}
    if condition_is(adapter, "Merged") and jobs.get("validate"):
        return "validate", jobs["validate"]
    return "merge", jobs.get("merge") or {}


def _job_links(seen: Seen, record: Raw, *, stage: str) -> list[Link]:
    name = str(record.get("name", ""))
    if not name:
        return []
    attempt = f"attempt {record.get('attempt', 1)}"
    job = next((one for one in seen.jobs if name_of(one) == name), None)
    pod = newest([one for one in seen.pods if label(one, LABEL_JOB) == name])
    if job is None:
        gone = f"the {stage} Job, {attempt}, is not there (removed, or not created yet)"
        return [Link(f"Job {name}", gone, trouble=False), *_pod_links(seen, pod)]
    ended = job_ended(job)
    doing = ended or ("is suspended" if job.get("spec", {}).get("suspend") else "runs")
    failed = bool(ended) and ended != "ended well"
    return [Link(f"Job {name}", f"the {stage} Job, {attempt}, {doing}", trouble=failed), *_pod_links(seen, pod)]


def _pod_links(seen: Seen, pod: Raw | None) -> list[Link]:
    if pod is None:
        return []
    trouble = trouble_of_pod(pod)
    links = [
        Link(f"Pod {name_of(pod)}", pod_summary(pod) if trouble is None else trouble.words, trouble=trouble is not None)
    ]
    warned = newest_warning(seen.events, kind="Pod", name=name_of(pod))
    if trouble is None and warned and not _succeeded(pod):
        links.append(Link(f"Event of pod {name_of(pod)}", warned, trouble=True))
    return links


def _succeeded(pod: Raw) -> bool:
    return str(status_of(pod).get("phase")) == "Succeeded" or condition(pod, "Ready").get("status") == "True"


def newest_warning(events: Sequence[Raw], *, kind: str, name: str) -> str:
    """What the last Warning about an object says; empty when there is none."""
    about = [
        event
        for event in events
        if event.get("type") == "Warning"
        and (event.get("involvedObject") or {}).get("kind") == kind
        and (event.get("involvedObject") or {}).get("name") == name
    ]
    if not about:
        return ""
    last = max(about, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return one_line(f"{last.get('reason', '')}: {last.get('message', '')}")[:400]


def _serving_links(seen: Seen, deployment: Raw, reason: str) -> list[Link]:
    """Pods of the revision that is on its way, or of the one that serves when that is what suffers."""
    status = status_of(deployment)
    abort = status.get("abort") or {}
    if reason not in _SERVED_PODS and not abort:
        return []
    version = status.get("stable") if reason == "CapacityLost" else status.get("candidate") or status.get("stable")
    revision = str((version or {}).get("revision", ""))
    name = name_of(deployment)
    pods = [pod for pod in seen.pods if label(pod, LABEL_DEPLOYMENT) == name and label(pod, LABEL_REVISION) == revision]
    troubled = [pod for pod in pods if trouble_of_pod(pod)] or [pod for pod in pods if pod_summary(pod) != "is ready"]
    return [link for pod in (troubled or pods)[:2] for link in _pod_links(seen, pod)]


def _todo(links: Sequence[Link], seen: Seen, *, mend_text: str, name: str) -> tuple[str, ...]:
    """The reason's mend, and that of the pod's trouble where it says more."""
    said = [mend_text] if mend_text else []
    for pod in seen.pods:
        trouble = trouble_of_pod(pod)
        shown = any(link.subject == f"Pod {name_of(pod)}" for link in links)
        if trouble is not None and shown and trouble.mend(name) and trouble.mend(name) not in said:
            said.append(trouble.mend(name))
    return tuple(said)

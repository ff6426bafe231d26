"""Both resources as they are read: typed views over the stored object, which stays whole in `raw`.

A view says what the object says, nothing computed with a clock. Where the status speaks of an older spec than the stored
one (`current` is False), the operator has not looked yet and nothing may be concluded from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lora_client.names import LABEL_CANCELLED, LABEL_WORKFLOW, DeploymentPhase

__all__ = [
    "Adapter",
    "Condition",
    "Deployment",
    "Finished",
    "Gate",
    "Request",
    "Resource",
    "Revision",
    "Version",
    "moment",
]


@dataclass(frozen=True)
class Condition:
    """One entry of `status.conditions`."""

    type: str
    status: str
    reason: str
    message: str
    since: str
    """RFC 3339: when status last flipped."""


@dataclass(frozen=True)
class Resource:
    """What a LoRAAdapter and a LoRADeployment have in common."""

    raw: Mapping[str, Any]

    @property
    def name(self) -> str:
        """metadata.name."""
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """metadata.namespace."""
        return str(self.raw["metadata"].get("namespace", ""))

    @property
    def uid(self) -> str:
        """metadata.uid."""
        return str(self.raw["metadata"].get("uid", ""))

    @property
    def created(self) -> datetime | None:
        """metadata.creationTimestamp."""
        return moment(self.raw["metadata"].get("creationTimestamp"))

    @property
    def deleting(self) -> bool:
        """A deletion is under way."""
        return "deletionTimestamp" in self.raw["metadata"]

    @property
    def labels(self) -> Mapping[str, str]:
        """metadata.labels."""
        return self.raw["metadata"].get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """metadata.annotations."""
        return self.raw["metadata"].get("annotations") or {}

    @property
    def spec(self) -> Mapping[str, Any]:
        """spec."""
        return self.raw.get("spec") or {}

    @property
    def status(self) -> Mapping[str, Any]:
        """status; empty until the operator looked for the first time."""
        return self.raw.get("status") or {}

    @property
    def current(self) -> bool:
        """The status is about the stored spec."""
        return bool(self.status.get("observedGeneration") == self.raw["metadata"].get("generation"))

    @property
    def phase(self) -> str:
        """status.phase; Pending before there is a status."""
        return str(self.status.get("phase") or "Pending")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """status.conditions."""
        return tuple(
            Condition(
                type=str(one.get("type", "")),
                status=str(one.get("status", "Unknown")),
                reason=str(one.get("reason", "")),
                message=str(one.get("message", "")),
                since=str(one.get("lastTransitionTime", "")),
            )
            for one in self.status.get("conditions") or ()
        )

    def condition(self, type: str) -> Condition | None:  # noqa: A002 (the field's name)
        """The condition of that type, or None."""
        return next((one for one in self.conditions if one.type == type), None)

    @property
    def ready(self) -> bool | None:
        """The Ready condition for the stored spec; None while nothing is known of it."""
        found = self.condition("Ready")
        if found is None or not self.current or found.status == "Unknown":
            return None
        return found.status == "True"

    @property
    def stalled(self) -> bool:
        """Only a person can help."""
        found = self.condition("Stalled")
        return self.current and found is not None and found.status == "True"

    @property
    def reason(self) -> str:
        """Reason of the Ready condition; empty while there is none."""
        found = self.condition("Ready")
        return "" if found is None else found.reason

    @property
    def message(self) -> str:
        """Message of the Ready condition: why, in words."""
        found = self.condition("Ready")
        return "" if found is None else found.message

    @property
    def workflow_id(self) -> str:
        """The workflow it belongs to; empty: none."""
        return self.labels.get(LABEL_WORKFLOW, "")

    @property
    def cancelled(self) -> bool:
        """Its workflow was cancelled."""
        return self.labels.get(LABEL_CANCELLED) == "true"


@dataclass(frozen=True)
class Gate:
    """One gate of a validation. `observed` and `threshold` are None where the gate compares no number."""

    name: str
    kind: str
    status: str
    observed: float | None
    threshold: float | None


@dataclass(frozen=True)
class Adapter(Resource):
    """A LoRAAdapter."""

    @property
    def digest(self) -> str:
        """Digest of the published artifact; empty before."""
        return str((self.status.get("artifact") or {}).get("digest", ""))

    @property
    def artifact_uri(self) -> str:
        """`pvc://<claim>/<path>` of the published artifact; empty before."""
        return str((self.status.get("artifact") or {}).get("uri", ""))

    @property
    def validation(self) -> Mapping[str, Any]:
        """status.validation: id, overallScore, grade, dimensions, gates, recommendations, probes, reportUri."""
        return self.status.get("validation") or {}

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates of the last validation."""
        return tuple(
            Gate(
                name=str(one.get("name", "")),
                kind=str(one.get("kind", "")),
                status=str(one.get("status", "")),
                observed=one.get("observed"),
                threshold=one.get("threshold"),
            )
            for one in self.validation.get("gates") or ()
        )

    @property
    def score(self) -> float | None:
        """Overall validation score, 0 to 1; None before it was validated."""
        return self.validation.get("overallScore")

    @property
    def grade(self) -> str:
        """excellent, good, fair, poor; empty before it was validated."""
        return str(self.validation.get("grade", ""))

    def job(self, stage: str) -> str:
        """Name of the Job of stage `merge` or `validate`; empty when none was started."""
        return str(((self.status.get("jobs") or {}).get(stage) or {}).get("name", ""))


@dataclass(frozen=True)
class Version:
    """stable, candidate or previous of a LoRADeployment. Weights are percent."""

    revision: str
    adapter: str
    artifact_digest: str
    weight: int
    ready_replicas: int


@dataclass(frozen=True)
class Finished:
    """One finished rollout of `status.history`. result: Succeeded, RolledBack or Superseded."""

    deployment_id: str
    adapter: str
    strategy: str
    started: str
    completed: str
    seconds: int
    result: str
    reason: str

    @property
    def revision(self) -> str:
        """The last part of the deployment id."""
        return self.deployment_id.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Request:
    """What became of a one-shot request. result: Accepted, Done, or `Ignored: why`."""

    verb: str
    value: str
    time: str
    result: str

    @property
    def ignored(self) -> bool:
        """The operator saw it and did nothing."""
        return self.result.startswith("Ignored")


@dataclass(frozen=True)
class Revision:
    """A stored version that can be gone back to."""

    revision: str
    number: int
    adapter: str
    artifact_digest: str
    created: str


_AT_REST = frozenset({DeploymentPhase.PENDING, DeploymentPhase.STABLE, DeploymentPhase.ABORTED})


@dataclass(frozen=True)
class Deployment(Resource):
    """A LoRADeployment."""

    @property
    def adapter(self) -> str:
        """spec.adapterRef.name: what shall serve."""
        return str((self.spec.get("adapterRef") or {}).get("name", ""))

    @property
    def strategy(self) -> str:
        """spec.strategy.type."""
        return str((self.spec.get("strategy") or {}).get("type", "Replace"))

    @property
    def stable(self) -> Version | None:
        """What serves; None before the first version was promoted."""
        return _version(self.status.get("stable"))

    @property
    def candidate(self) -> Version | None:
        """What is being rolled out, or was given up last; None when nothing is."""
        return _version(self.status.get("candidate"))

    @property
    def running(self) -> Version | None:
        """The candidate while its rollout is under way: status keeps telling of one that was given up."""
        return None if self.phase in _AT_REST else self.candidate

    @property
    def previous(self) -> Version | None:
        """What served before and is still there."""
        return _version(self.status.get("previous"))

    @property
    def held_revision(self) -> str:
        """After rollback-to: the revision that does not start again."""
        return str(self.status.get("heldRevision") or "")

    @property
    def abort(self) -> Mapping[str, Any]:
        """status.abort: revision, reason, message, evidence of the candidate that was given up last; empty: none."""
        return self.status.get("abort") or {}

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where requests are answered."""
        return tuple(self.status.get("endpoints") or ())

    @property
    def history(self) -> tuple[Finished, ...]:
        """Finished rollouts, newest first."""
        return tuple(
            Finished(
                deployment_id=str(one.get("deploymentId", "")),
                adapter=str(one.get("adapter", "")),
                strategy=str(one.get("strategy", "")),
                started=str(one.get("startTime", "")),
                completed=str(one.get("completionTime", "")),
                seconds=int(one.get("durationSeconds") or 0),
                result=str(one.get("result", "")),
                reason=str(one.get("reason", "")),
            )
            for one in self.status.get("history") or ()
        )

    @property
    def requests(self) -> Mapping[str, Request]:
        """Answers to one-shot requests, by verb."""
        return {
            verb: Request(
                verb=verb,
                value=str(one.get("value", "")),
                time=str(one.get("time", "")),
                result=str(one.get("result", "")),
            )
            for verb, one in (self.status.get("lastRequests") or {}).items()
        }

    @property
    def deployment_id(self) -> str:
        """`<namespace>/<name>/<revision>` of what serves, or of what is on its way; empty before either."""
        version = self.stable or self.candidate
        return f"{self.namespace}/{self.name}/{version.revision}" if version else ""


def moment(text: object) -> datetime | None:
    """A stored time; None where there is none."""
    return datetime.fromisoformat(str(text)) if text else None


def _version(raw: Mapping[str, Any] | None) -> Version | None:
    if not raw or not raw.get("revision"):
        return None
    return Version(
        revision=str(raw["revision"]),
        adapter=str(raw.get("adapter", "")),
        artifact_digest=str(raw.get("artifactDigest", "")),
        weight=int(raw.get("weight") or 0),
        ready_replicas=int(raw.get("readyReplicas") or 0),
    )


def known_names(resources: Sequence[Resource]) -> list[str]:
    """Names for messages."""
    return [one.name for one in resources]

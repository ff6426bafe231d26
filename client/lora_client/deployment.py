"""A LoRADeployment as it is read (resource.py says what a view is), and what belongs to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_client.names import DeploymentPhase
from lora_client.resource import Resource

__all__ = ["Deployment", "Finished", "Request", "Revision", "Version"]


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

"""A revision frozen in a ControllerRevision: everything that is needed to serve it again, years later.

The pod template is stored whole, so that neither a chart upgrade nor a deleted adapter can change what a revision is.
    adapter + artifact + spec.runtime + profile ──build_revision──► Revision ◄──parse/manifest──► ControllerRevision
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_operator.api.kinds import CONTROLLER_REVISION
from lora_operator.api.names import revisioned
from lora_operator.core.build.labels import metadata_of, revision_labels
from lora_operator.core.build.owner import Owner

__all__ = ["Revision", "build_controller_revision", "parse_controller_revision"]

SCHEMA = 1


@dataclass(frozen=True)
class Revision:
    """What serves under one name, exactly."""

    revision: str
    number: int  # grows by one per new revision: the order of history
    adapter: str
    artifact_digest: str
    served_model_name: str
    profile: str
    profile_digest: str
    port: int
    routes: Mapping[str, str]
    probes: tuple[Mapping[str, Any], ...]
    gpu_resource: str  # empty: the pods ask for no device
    gpus_per_pod: int
    drain_seconds: int
    template: Mapping[str, Any]  # spec.template of the Deployment


def build_controller_revision(owner: Owner, revision: Revision) -> dict[str, Any]:
    """The object that keeps a revision. Its data is immutable by the API server's own rule."""
    return {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.kind,
        "metadata": metadata_of(
            owner,
            name=revisioned(owner.name, revision=revision.revision),
            component="revision",
            labels=revision_labels(revision.revision),
        ),
        "revision": revision.number,
        "data": {
            "schema": SCHEMA,
            "revision": revision.revision,
            "adapter": revision.adapter,
            "artifactDigest": revision.artifact_digest,
            "servedModelName": revision.served_model_name,
            "profile": {"name": revision.profile, "digest": revision.profile_digest},
            "port": revision.port,
            "routes": dict(revision.routes),
            "probes": [dict(probe) for probe in revision.probes],
            "gpu": {"resource": revision.gpu_resource, "perPod": revision.gpus_per_pod},
            "drainSeconds": revision.drain_seconds,
            "template": dict(revision.template),
        },
    }


def parse_controller_revision(raw: Mapping[str, Any]) -> Revision | None:
    """The stored revision, or None when the object is not one that this version understands."""
    data = raw.get("data") or {}
    if data.get("schema") != SCHEMA:
        return None
    return Revision(
        revision=data["revision"],
        number=raw["revision"],
        adapter=data["adapter"],
        artifact_digest=data["artifactDigest"],
        served_model_name=data["servedModelName"],
        profile=data["profile"]["name"],
        profile_digest=data["profile"]["digest"],
        port=data["port"],
        routes=data["routes"],
        probes=tuple(data["probes"]),
        gpu_resource=data["gpu"]["resource"],
        gpus_per_pod=data["gpu"]["perPod"],
        drain_seconds=data["drainSeconds"],
        template=data["template"],
    )

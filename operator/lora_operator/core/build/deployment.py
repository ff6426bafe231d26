"""The apps/v1 Deployment of one revision: a frozen pod template and a number of replicas, nothing else ever changes."""

from typing import Any

from lora_operator.api.kinds import DEPLOYMENT
from lora_operator.api.names import revisioned
from lora_operator.core.build.labels import metadata_of, revision_labels, selector_of, stamped
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.revision import Revision

__all__ = ["build_deployment"]


def build_deployment(owner: Owner, revision: Revision, *, replicas: int) -> dict[str, Any]:
    """Deployment `<name>-<revision>`."""
    return stamped(
        {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.kind,
            "metadata": metadata_of(
                owner,
                name=revisioned(owner.name, revision=revision.revision),
                component="serving",
                labels=revision_labels(revision.revision),
            ),
            "spec": {
                "replicas": replicas,
                "revisionHistoryLimit": 0,
                "selector": {"matchLabels": selector_of(owner, revision=revision.revision)},
                # The template never changes; should a hand edit be healed, no GPU is needed twice.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                "template": dict(revision.template),
            },
        }
    )

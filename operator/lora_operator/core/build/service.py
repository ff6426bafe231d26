"""Services: one per revision (what routes name), and for the plain Service router one that clients use."""

from typing import Any

from lora_operator.api.kinds import SERVICE
from lora_operator.api.names import revisioned
from lora_operator.core.build.labels import metadata_of, revision_labels, selector_of, stamped
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.pod_template import PORT_NAME

__all__ = ["SERVICE_PORT", "build_public_service", "build_revision_service"]

SERVICE_PORT = 80


def build_revision_service(owner: Owner, *, revision: str) -> dict[str, Any]:
    """Service `<name>-<revision>`: the ready pods of one revision."""
    return _service(owner, name=revisioned(owner.name, revision=revision), revision=revision, component="serving")


def build_public_service(owner: Owner, *, revision: str) -> dict[str, Any]:
    """Service `<name>` of `traffic.service`: its selector is the switch."""
    return _service(owner, name=owner.name, revision=revision, component="router")


def _service(owner: Owner, *, name: str, revision: str, component: str) -> dict[str, Any]:
    return stamped(
        {
            "apiVersion": SERVICE.api_version,
            "kind": SERVICE.kind,
            "metadata": metadata_of(owner, name=name, component=component, labels=revision_labels(revision)),
            "spec": {
                "type": "ClusterIP",
                "selector": selector_of(owner, revision=revision),
                # Routers match ports by name.
                "ports": [{"name": PORT_NAME, "port": SERVICE_PORT, "targetPort": PORT_NAME, "protocol": "TCP"}],
            },
        }
    )

"""Services: one per revision (what routes name), and for the plain Service router one that clients use."""

from collections.abc import Mapping
from typing import Any

from lora_operator.api.kinds import SERVICE
from lora_operator.api.names import LABEL_DEPLOYMENT, LABEL_IN_SERVICE, revisioned
from lora_operator.core.build.labels import metadata_of, revision_labels, selector_of, stamped
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.pod_template import PORT_NAME

__all__ = ["SERVICE_PORT", "build_public_service", "build_revision_service", "build_shared_service"]

SERVICE_PORT = 80


def build_revision_service(owner: Owner, *, revision: str) -> dict[str, Any]:
    """Service `<name>-<revision>`: the ready pods of one revision."""
    return _service(
        owner,
        name=revisioned(owner.name, revision=revision),
        component="serving",
        labels=revision_labels(revision),
        selector=selector_of(owner, revision=revision),
    )


def build_public_service(owner: Owner, *, revision: str) -> dict[str, Any]:
    """Service `<name>` of `traffic.service`: its selector is the switch."""
    return _service(
        owner,
        name=owner.name,
        component="router",
        labels=revision_labels(revision),
        selector=selector_of(owner, revision=revision),
    )


def build_shared_service(owner: Owner) -> dict[str, Any]:
    """The same Service during a canary: pods of both versions that carry the label `loraops.dev/in-service`."""
    selector = {LABEL_DEPLOYMENT: owner.name, LABEL_IN_SERVICE: "true"}
    return _service(owner, name=owner.name, component="router", labels={}, selector=selector)


def _service(
    owner: Owner, *, name: str, component: str, labels: Mapping[str, str], selector: Mapping[str, str]
) -> dict[str, Any]:
    return stamped(
        {
            "apiVersion": SERVICE.api_version,
            "kind": SERVICE.kind,
            "metadata": metadata_of(owner, name=name, component=component, labels=labels),
            "spec": {
                "type": "ClusterIP",
                "selector": dict(selector),
                # Routers match ports by name.
                "ports": [{"name": PORT_NAME, "port": SERVICE_PORT, "targetPort": PORT_NAME, "protocol": "TCP"}],
            },
        }
    )

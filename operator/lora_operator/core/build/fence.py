"""The fence: one more Ingress, written after all others, on which the controller answers once it has taken them.

An Ingress carries no word of acceptance. But controllers read Ingresses in the order in which they were written, so one that answers
on the last has the others. The fence has a host of its own for each distribution of requests, under `.invalid`, which no
resolver knows, and leads to the health route of the version that is to get (more) requests: an answer says too that the controller
knows a ready pod of it.

    name   <name>-fence
    host   <hash of weights and forced assignment>.<name>.<namespace>.invalid
    path   /fence ─► the runtime's health path
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lora_operator.api.kinds import INGRESS
from lora_operator.api.names import canonical_hash, revisioned
from lora_operator.core.build.forced import Forced
from lora_operator.core.build.labels import metadata_of, stamped
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.pod_template import PORT_NAME

__all__ = ["FENCE_PATH", "build_fence", "fence_host", "fence_name"]

FENCE_PATH = "/fence"
_HEALTH = "/api/v1/health"
_REWRITE = "nginx.ingress.kubernetes.io/rewrite-target"


def fence_name(owner: Owner) -> str:
    """Of the Ingress."""
    return f"{owner.name}-fence"


def fence_host(owner: Owner, *, weights: Mapping[str, int], forced: Forced | None) -> str:
    """A host that only this distribution of requests has."""
    said = [sorted(weights.items()), None if forced is None else asdict(forced)]
    return f"{canonical_hash(said, digits=16)}.{owner.name}.{owner.namespace}.invalid"


def build_fence(
    owner: Owner, *, class_name: str, routes: Mapping[str, str], weights: Mapping[str, int], forced: Forced | None
) -> dict[str, Any]:
    """Ingress `<name>-fence`. `weights`: revision → share, the version that gains last."""
    gains = list(weights)[-1] if forced is None else forced.revision
    target = routes.get(_HEALTH) or next(target for _, target in sorted(routes.items()))
    service = {"name": revisioned(owner.name, revision=gains), "port": {"name": PORT_NAME}}
    path = {"path": FENCE_PATH, "pathType": "Exact", "backend": {"service": service}}
    metadata = metadata_of(owner, name=fence_name(owner), component="router")
    metadata["annotations"] = {_REWRITE: target}
    rule = {"host": fence_host(owner, weights=weights, forced=forced), "http": {"paths": [path]}}
    return stamped(
        {
            "apiVersion": INGRESS.api_version,
            "kind": INGRESS.kind,
            "metadata": metadata,
            "spec": {"ingressClassName": class_name, "rules": [rule]},
        }
    )

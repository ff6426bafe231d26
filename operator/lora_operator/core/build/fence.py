"""The fence: a way behind all that was written, on which the controller answers once it has taken it.

What the API server holds is not what is served: a controller follows its own watch, applies changes as it has time, and says so before it
does (an HTTPRoute is Accepted when it was read) or never (an Ingress has no word for it). So each distribution of requests carries a mark
of its own, and a request that only this mark can answer shows that it is served. It leads to the health route of the version that is to
get (more) requests: an answer says too that the controller knows a ready pod of it.

    Ingress     one more, `<name>-fence`, written last: Ingresses are read in the order in which they were written
                host   <mark>.<name>.<namespace>.invalid, which no resolver knows
                path   /fence ─► the runtime's health path
    HTTPRoute   one more rule, because a route is taken whole
                match  the runtime's health path with header x-lora-fence: <mark>; answered with the same header, so that no other
                       route of that host can be taken for it
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lora_operator.api.kinds import INGRESS
from lora_operator.api.names import canonical_hash, revisioned
from lora_operator.core.build.forced import Forced
from lora_operator.core.build.labels import metadata_of, stamped
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.pod_template import PORT_NAME
from lora_operator.core.build.service import SERVICE_PORT

__all__ = [
    "FENCE_HEADER",
    "FENCE_PATH",
    "Fence",
    "build_fence",
    "build_fence_rule",
    "fence_host",
    "fence_mark",
    "fence_name",
    "fences_of",
    "is_fence",
]

FENCE_HEADER = "x-lora-fence"
FENCE_PATH = "/fence"
_HEALTH = "/api/v1/health"
_REWRITE = "nginx.ingress.kubernetes.io/rewrite-target"


@dataclass(frozen=True)
class Fence:
    """Where it is asked. `mark`: the header to send and to get back; empty where the host is proof enough."""

    host: str
    path: str
    mark: str = ""


def fence_name(owner: Owner) -> str:
    """Of the Ingress."""
    return f"{owner.name}-fence"


def fence_mark(*, weights: Mapping[str, int], forced: Forced | None) -> str:
    """What only this distribution of requests has."""
    return canonical_hash([sorted(weights.items()), None if forced is None else asdict(forced)], digits=16)


def fence_host(owner: Owner, *, weights: Mapping[str, int], forced: Forced | None) -> str:
    """A host that only this distribution of requests has."""
    return f"{fence_mark(weights=weights, forced=forced)}.{owner.name}.{owner.namespace}.invalid"


def build_fence(
    owner: Owner, *, class_name: str, routes: Mapping[str, str], weights: Mapping[str, int], forced: Forced | None
) -> dict[str, Any]:
    """Ingress `<name>-fence`. `weights`: revision → share, the version that gains last."""
    service = {"name": _gains(owner, weights=weights, forced=forced), "port": {"name": PORT_NAME}}
    path = {"path": FENCE_PATH, "pathType": "Exact", "backend": {"service": service}}
    metadata = metadata_of(owner, name=fence_name(owner), component="router")
    metadata["annotations"] = {_REWRITE: _health_path(routes)}
    rule = {"host": fence_host(owner, weights=weights, forced=forced), "http": {"paths": [path]}}
    return stamped(
        {
            "apiVersion": INGRESS.api_version,
            "kind": INGRESS.kind,
            "metadata": metadata,
            "spec": {"ingressClassName": class_name, "rules": [rule]},
        }
    )


def build_fence_rule(
    owner: Owner, *, routes: Mapping[str, str], weights: Mapping[str, int], forced: Forced | None
) -> dict[str, Any]:
    """The rule of an HTTPRoute. The path is the runtime's own: one filter is enough then, and Traefik keeps several in no order, so
    that each look at the route would be a change of it, and start its round robin anew."""
    mark = fence_mark(weights=weights, forced=forced)
    path = {"type": "Exact", "value": _health_path(routes)}
    answer = {"set": [{"name": FENCE_HEADER, "value": mark}]}
    service = {"group": "", "kind": "Service", "name": _gains(owner, weights=weights, forced=forced)}
    return {
        "matches": [{"path": path, "headers": [{"type": "Exact", "name": FENCE_HEADER, "value": mark}]}],
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": answer}],
        "backendRefs": [{**service, "port": SERVICE_PORT, "weight": 1}],
    }


def is_fence(rule: Mapping[str, Any]) -> bool:
    """Whether a rule of an HTTPRoute is a fence: it alone answers with the header."""
    filters = rule.get("filters") or ()
    added = (header for one in filters for header in (one.get("responseHeaderModifier") or {}).get("set") or ())
    return any(str(header.get("name", "")).lower() == FENCE_HEADER for header in added)


def fences_of(route: Mapping[str, Any], *, host: str) -> tuple[Fence, ...]:
    """The fences in an HTTPRoute, as they are asked under a host name; one, or none where the settings asked for none."""
    return tuple(
        Fence(host=host, path=match["path"]["value"], mark=header["value"])
        for rule in route["spec"].get("rules") or ()
        if is_fence(rule)
        for match in rule["matches"]
        for header in match.get("headers") or ()  # a hand edit may have taken it, and is healed
    )


def _gains(owner: Owner, *, weights: Mapping[str, int], forced: Forced | None) -> str:
    """Service of the version that is to get (more) requests."""
    return revisioned(owner.name, revision=list(weights)[-1] if forced is None else forced.revision)


def _health_path(routes: Mapping[str, str]) -> str:
    """The runtime's own; of a runtime without one the first path that it has."""
    return routes.get(_HEALTH) or next(target for _, target in sorted(routes.items()))

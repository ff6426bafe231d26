"""The operator-owned HTTPRoute: only the public routes, each with the rewrite the runtime needs, weights in stable order.

`rules` and `backendRefs` are atomic lists, so the object is always written whole and never shared.
Where requests are forced to one revision each path has a rule before, with the header that they carry; a cookie is matched in the
Cookie header by an expression, which not every implementation can (routing/capability.py knows).
"""

import re
from collections.abc import Mapping
from typing import Any

from lora_operator.api.deployment import GatewayTraffic
from lora_operator.api.kinds import HTTP_ROUTE
from lora_operator.api.names import revisioned
from lora_operator.api.strategy import Match
from lora_operator.core.build.fence import build_fence_rule
from lora_operator.core.build.forced import Forced
from lora_operator.core.build.labels import metadata_of, stamped
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.service import SERVICE_PORT

__all__ = ["build_http_route", "header_match"]


def build_http_route(
    owner: Owner,
    traffic: GatewayTraffic,
    *,
    routes: Mapping[str, str],
    weights: Mapping[str, int],
    forced: Forced | None = None,
    fenced: bool = False,
) -> dict[str, Any]:
    """HTTPRoute `<name>`. `routes`: public path → runtime path; `weights`: revision → share, in the order to write; `fenced`: with
    a rule on which its controller is asked whether it serves exactly this.

    A revision of weight 0 is left out: a scale-down then needs no second look at weights, only at names.
    """
    spec: dict[str, Any] = {
        "parentRefs": [
            {"group": "gateway.networking.k8s.io", "kind": "Gateway"} | dict(ref) for ref in traffic.parent_refs
        ],
        "rules": [
            *(_forced_rule(owner, path, target, forced=forced) for path, target in sorted(routes.items()) if forced),
            *(_rule(owner, path, target, weights=weights) for path, target in sorted(routes.items())),
            *([build_fence_rule(owner, routes=routes, weights=weights, forced=forced)] if fenced else []),
        ],
    }
    if traffic.hostnames:
        spec["hostnames"] = list(traffic.hostnames)
    return stamped(
        {
            "apiVersion": HTTP_ROUTE.api_version,
            "kind": HTTP_ROUTE.kind,
            "metadata": metadata_of(owner, name=owner.name, component="router"),
            "spec": spec,
        }
    )


def header_match(match: Match) -> dict[str, str]:
    """The match in the terms of an HTTPRoute."""
    if match.kind == "header":
        return {"type": "Exact", "name": match.name, "value": match.value}
    said = f"{_quoted(match.name)}={_quoted(match.value)}"
    return {"type": "RegularExpression", "name": "Cookie", "value": f"^(.*; ?)?{said}(;.*)?$"}


def _quoted(text: str) -> str:
    """For RE2, which takes no backslash before a character that needs none."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def _forced_rule(owner: Owner, path: str, target: str, *, forced: Forced) -> dict[str, Any]:
    rule = _rule(owner, path, target, weights={forced.revision: 1})
    rule["matches"][0]["headers"] = [header_match(forced.match)]
    return rule


def _rule(owner: Owner, path: str, target: str, *, weights: Mapping[str, int]) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "matches": [{"path": {"type": "Exact", "value": path}}],
        "backendRefs": [
            {
                "group": "",
                "kind": "Service",
                "name": revisioned(owner.name, revision=revision),
                "port": SERVICE_PORT,
                "weight": weight,
            }
            for revision, weight in weights.items()
            if weight > 0
        ],
    }
    if target != path:
        rule["filters"] = [
            {
                "type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": target}},
            }
        ]
    return rule

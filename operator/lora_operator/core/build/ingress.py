"""Ingresses with canary annotations: a primary for the serving version, and during a canary a twin that takes its share.

    <name>             paths that the runtime has itself          <name>-canary
    <name>-inference   /api/v1/inference, rewritten               <name>-inference-canary
    <name>-health      /api/v1/health, rewritten                  <name>-health-canary

Pairs, because rewrite-target holds for a whole Ingress. The annotations are those of ingress-nginx, which other controllers
implement too.
"""

from collections.abc import Mapping
from typing import Any

from lora_operator.api.deployment import IngressTraffic
from lora_operator.api.kinds import INGRESS
from lora_operator.api.names import revisioned
from lora_operator.api.strategy import Match
from lora_operator.core.build.forced import Forced
from lora_operator.core.build.labels import metadata_of, stamped
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.pod_template import PORT_NAME

__all__ = [
    "CANARY",
    "CANARY_WEIGHT",
    "COOKIE_VALUE",
    "build_ingresses",
    "ingress_names",
    "match_of",
    "not_routable",
]

ANNOTATION = "nginx.ingress.kubernetes.io/"
CANARY = f"{ANNOTATION}canary"
CANARY_WEIGHT = f"{ANNOTATION}canary-weight"
COOKIE_VALUE = "always"  # the only one that sends a request to the canary
_BY_HEADER = f"{ANNOTATION}canary-by-header"
_BY_HEADER_VALUE = f"{ANNOTATION}canary-by-header-value"
_BY_COOKIE = f"{ANNOTATION}canary-by-cookie"
_REWRITE = f"{ANNOTATION}rewrite-target"
_REGEX = f"{ANNOTATION}use-regex"
_REWRITTEN = {"/api/v1/inference": "-inference", "/api/v1/health": "-health"}


def ingress_names(owner: Owner) -> tuple[str, ...]:
    """Names of all Ingresses that a deployment may have, primaries first."""
    primaries = (owner.name, *(owner.name + suffix for suffix in _REWRITTEN.values()))
    return (*primaries, *(f"{name}-canary" for name in primaries))


def not_routable(routes: Mapping[str, str]) -> str:
    """A path that the profile rewrites and no Ingress of ours can; empty when there is none."""
    return next((path for path, target in sorted(routes.items()) if path != target and path not in _REWRITTEN), "")


def match_of(twin: Mapping[str, Any]) -> Match | None:
    """Which requests a canary twin takes whatever its weight; None: it goes by weight alone."""
    said = twin["metadata"].get("annotations") or {}
    if _BY_HEADER in said:
        return Match(kind="header", name=said[_BY_HEADER], value=said.get(_BY_HEADER_VALUE, COOKIE_VALUE))
    return Match(kind="cookie", name=said[_BY_COOKIE], value=COOKIE_VALUE) if _BY_COOKIE in said else None


def build_ingresses(
    owner: Owner,
    traffic: IngressTraffic,
    *,
    routes: Mapping[str, str],
    weights: Mapping[str, int],
    forced: Forced | None = None,
) -> tuple[dict[str, Any], ...]:
    """All Ingresses that say `weights` (revision → share, the serving version first), primaries before canaries."""
    serving, *canary = [*weights, *([] if forced is None or forced.revision in weights else [forced.revision])]
    groups = [("", sorted(path for path, target in routes.items() if path == target), "")]
    groups += [(suffix, [path], routes[path]) for path, suffix in _REWRITTEN.items() if path in routes]
    groups = [(suffix, paths, target) for suffix, paths, target in groups if paths]
    primaries = [
        _ingress(owner, traffic, name=owner.name + suffix, paths=paths, target=target, revision=serving)
        for suffix, paths, target in groups
    ]
    twins = [
        _ingress(
            owner,
            traffic,
            name=f"{owner.name}{suffix}-canary",
            paths=paths,
            target=target,
            revision=revision,
            annotations={CANARY: "true", CANARY_WEIGHT: str(weights.get(revision, 0))} | _forced(forced),
        )
        for revision in canary
        for suffix, paths, target in groups
    ]
    return (*primaries, *twins)


def _forced(forced: Forced | None) -> dict[str, str]:
    if forced is None:
        return {}
    if forced.match.kind == "cookie":
        return {_BY_COOKIE: forced.match.name}
    return {_BY_HEADER: forced.match.name, _BY_HEADER_VALUE: forced.match.value}


def _ingress(
    owner: Owner,
    traffic: IngressTraffic,
    *,
    name: str,
    paths: list[str],
    target: str,
    revision: str,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    service = {"name": revisioned(owner.name, revision=revision), "port": {"name": PORT_NAME}}
    matches, rewrites = _matches(traffic.path.rstrip("/"), paths=paths, target=target)
    rule: dict[str, Any] = {"http": {"paths": [match | {"backend": {"service": service}} for match in matches]}}
    if traffic.host:
        rule = {"host": traffic.host} | rule
    metadata = metadata_of(owner, name=name, component="router")
    metadata["annotations"] = rewrites | dict(annotations or {})
    return stamped(
        {
            "apiVersion": INGRESS.api_version,
            "kind": INGRESS.kind,
            "metadata": metadata,
            "spec": {"ingressClassName": traffic.class_name, "rules": [rule]},
        }
    )


def _matches(prefix: str, *, paths: list[str], target: str) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Path matches and the annotations that rewrite them. Under a prefix one expression takes it away again."""
    if target:
        return [{"path": f"{prefix}{paths[0]}", "pathType": "Exact"}], {_REWRITE: target}
    if not prefix:
        return [{"path": path, "pathType": "Exact"} for path in paths], {}
    expression = f"{prefix.replace('.', '[.]')}({'|'.join(paths)})$"
    return [{"path": expression, "pathType": "ImplementationSpecific"}], {_REGEX: "true", _REWRITE: "$1"}

"""What a Gateway's implementation cannot do that a rollout needs: found out before a pod is started.

    no HTTPRoute in the API           the Gateway API is not installed
    GatewayClass not accepted         no implementation looks after it
    no HTTPRoutePathRewrite           the profile's paths cannot be rewritten
    no expressions over headers       a cookie cannot be matched
    no HTTPRouteResponse-             a fence (core/build/fence.py) cannot answer, where the settings ask for one
    HeaderModification

An implementation lists what it can in GatewayClass.status.supportedFeatures. One that lists nothing is not refused: whatever it will
not take it has to say in the route's own conditions. Expressions over headers are no feature of that list, and a route that asks for one
in vain may be dropped whole, with all its requests: there only implementations are trusted whose own documentation says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_operator.api.deployment import GatewayTraffic
from lora_operator.api.kinds import GATEWAY, GATEWAY_CLASS, HTTP_ROUTE
from lora_operator.api.reasons import Reason
from lora_operator.core.rollout.observed import Lack
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import Forbidden, NotFound

__all__ = ["lack_of"]

NO_OBJECT = "loraops.dev/none=none"  # whether the API has a kind at all is told without its objects, of which there may be thousands
PATH_REWRITE = "HTTPRoutePathRewrite"
RESPONSE_HEADER = "HTTPRouteResponseHeaderModification"
_MATCHES_EXPRESSIONS = frozenset({"traefik.io/gateway-controller", "gateway.envoyproxy.io/gatewayclass-controller"})
_KINDS_THAT_DO = frozenset({"traefik", "envoy-gateway"})


async def lack_of(
    kube: Kube,
    traffic: GatewayTraffic,
    *,
    namespace: str,
    rewrites: bool,
    cookie: bool,
    routers: Sequence[Mapping[str, Any]],
) -> Lack | None:
    """The first thing that is missing; None where nothing is, or where it cannot be known.

    `rewrites`: paths have to be rewritten; `cookie`: an A/B test matches one; `routers`: of the settings.
    """
    try:
        await kube.list(HTTP_ROUTE, namespace=namespace, labels=NO_OBJECT)
    except NotFound:
        return Lack(
            reason=Reason.GATEWAY_NOT_FOUND,
            message="spec.traffic.gateway: the API server knows no HTTPRoute (gateway.networking.k8s.io/v1); install the Gateway "
            "API and an implementation, or use spec.traffic.ingress or service",
        )
    for ref in traffic.parent_refs:
        gateway = await _get(kube, GATEWAY, namespace=ref.get("namespace", namespace), name=str(ref["name"]))
        if gateway is None:
            continue  # the router says so, and waits for it
        name = str(gateway["spec"].get("gatewayClassName", ""))
        known = await _get(kube, GATEWAY_CLASS, namespace=None, name=name)
        lack = _unaccepted(name, known) or (_no_rewrite(name, known) if rewrites else None)
        if lack is None and any(router.get("gatewayClass") and router.get("url") for router in routers):
            lack = _no_fence(name, known)
        if lack is None and cookie:
            lack = _no_expressions(name, known, kinds=[r.get("kind") for r in routers if r.get("gatewayClass") == name])
        if lack is not None:
            return lack
    return None


async def _get(kube: Kube, kind: Any, *, namespace: str | None, name: str) -> Json | None:
    try:
        return await kube.get(kind, namespace=namespace, name=name)
    except (NotFound, Forbidden):
        return None  # a namespaced installation may not read classes


def _unaccepted(name: str, known: Json | None) -> Lack | None:
    conditions = ((known or {}).get("status") or {}).get("conditions") or ()
    for condition in conditions:
        if condition.get("type") == "Accepted" and condition.get("status") == "False":
            said = f"{condition.get('reason', '')}: {condition.get('message', '')}"
            return Lack(
                reason=Reason.ROUTE_NOT_ACCEPTED,
                message=f"spec.traffic.gateway: GatewayClass {name} is not accepted by its controller ({said}); mend the class",
            )
    return None


def _no_rewrite(name: str, known: Json | None) -> Lack | None:
    why = "the profile's paths have to be rewritten; use another implementation, or a profile whose routes are those of the runtime"
    return _unlisted(PATH_REWRITE, name, known, why=why)


def _no_fence(name: str, known: Json | None) -> Lack | None:
    why = (
        "the settings' routers give a gatewayClass with a url, so that routes are confirmed by a header of the answer; use another "
        "implementation, or take that url away"
    )
    return _unlisted(RESPONSE_HEADER, name, known, why=why)


def _unlisted(feature: str, name: str, known: Json | None, *, why: str) -> Lack | None:
    others = _features_without(feature, known)
    if not others:
        return None
    return Lack(
        reason=Reason.ROUTER_LACKS_FEATURE,
        message=f"spec.traffic.gateway: GatewayClass {name} does not list {feature} among its {others} features, and {why}",
    )


def _features_without(wanted: str, known: Json | None) -> int:
    """How many features a class lists when this one is not among them; 0 when it is, or when none are listed."""
    listed = ((known or {}).get("status") or {}).get("supportedFeatures") or ()
    features = {str(one.get("name", "")) if isinstance(one, Mapping) else str(one) for one in listed}
    return 0 if wanted in features else len(features)


def _no_expressions(name: str, known: Json | None, *, kinds: list[Any]) -> Lack | None:
    controller = str(((known or {}).get("spec") or {}).get("controllerName", ""))
    if controller in _MATCHES_EXPRESSIONS or _KINDS_THAT_DO & {str(kind) for kind in kinds}:
        return None
    return Lack(
        reason=Reason.ROUTER_LACKS_FEATURE,
        message=f"spec.strategy.abTest.match.cookie: GatewayClass {name} (controller {controller or 'unknown'}) is not known to match a "
        "header by an expression; match a header instead, or name the class in the settings' routers with its kind "
        f"({', '.join(sorted(_KINDS_THAT_DO))})",
    )

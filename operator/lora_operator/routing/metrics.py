"""Where the router of a deployment's traffic publishes what it counts, as the settings say for its class.

    routers:
    - {gatewayClass: traefik, kind: traefik, metricsUrl: http://traefik.infra:9100/metrics}
    - {ingressClass: nginx, kind: traefik, podSelector: {namespace: infra, matchLabels: {app: traefik}, port: 9100}}

`podSelector` for a router of several pods: a Service in front of them would answer with another pod's counters each time. What cannot be
found out is a problem in words, never a reason to count elsewhere: figures of two sources are no comparison.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from lora_operator.api.deployment import GatewayTraffic, IngressTraffic, Traffic
from lora_operator.api.kinds import GATEWAY, POD
from lora_operator.core.rollout.observed import RouterMetrics
from lora_operator.core.rollout.pods import parse_pod
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import Forbidden, NotFound

__all__ = ["router_metrics"]


async def router_metrics(
    kube: Kube, traffic: Traffic, *, namespace: str, routers: Iterable[Mapping[str, Any]]
) -> RouterMetrics | None:
    """None where the settings name no metrics of that router."""
    key = {GatewayTraffic: "gatewayClass", IngressTraffic: "ingressClass"}.get(type(traffic), "")
    known = {router[key]: router for router in routers if router.get(key) and _is_read(router)}
    if not known:
        return None
    try:
        name = await _class_of(kube, traffic, namespace=namespace)
        return RouterMetrics(addresses=await _addresses(kube, known[name])) if name in known else None
    except (NotFound, Forbidden) as error:
        return RouterMetrics(problem=f"what the settings' routers name cannot be read: {error}")


def _is_read(router: Mapping[str, Any]) -> bool:
    return bool(router.get("metricsUrl") or router.get("podSelector"))


async def _class_of(kube: Kube, traffic: Traffic, *, namespace: str) -> str:
    """Raises NotFound where the Gateway is gone."""
    if isinstance(traffic, IngressTraffic):
        return traffic.class_name
    assert isinstance(traffic, GatewayTraffic)  # noqa: S101 (the other kinds have no class)
    ref = traffic.parent_refs[0]
    where = ref.get("namespace", namespace)
    gateway = await kube.get(GATEWAY, namespace=where, name=str(ref["name"]))
    if gateway is None:
        raise NotFound(f"Gateway {where}/{ref['name']} does not exist")
    return str(gateway["spec"].get("gatewayClassName", ""))


async def _addresses(kube: Kube, router: Mapping[str, Any]) -> tuple[str, ...]:
    if router.get("metricsUrl"):
        return (str(router["metricsUrl"]),)
    selector = router["podSelector"]
    labels = ",".join(f"{key}={value}" for key, value in sorted(selector["matchLabels"].items()))
    pods: list[Json] = list(await kube.list(POD, namespace=selector["namespace"], labels=labels))
    ready = [pod for pod in map(parse_pod, pods) if pod.ready and pod.ip]
    if not ready:
        raise NotFound(f"no pod with {labels} is ready in namespace {selector['namespace']}")
    path = selector.get("path", "/metrics")
    return tuple(sorted(f"http://{pod.ip}:{selector['port']}{path}" for pod in ready))

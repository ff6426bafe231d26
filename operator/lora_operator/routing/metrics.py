"""Where the router of a deployment's traffic publishes what it counts, as the settings say for its class.

    routers:
    - {gatewayClass: traefik, kind: traefik, metricsUrl: http://traefik.infra:9100/metrics}
    - {ingressClass: nginx, kind: ingress-nginx, podSelector: {namespace: ingress-nginx, matchLabels: {app: controller}, port: 10254}}

`podSelector` for a router of several pods: a Service in front of them would answer with another pod's counters each time.
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
    """None where the settings name no metrics of that router, or where it may not be read."""
    known = [router for router in routers if router.get("metricsUrl") or router.get("podSelector")]
    if not known:
        return None
    try:
        key, classes = await _classes(kube, traffic, namespace=namespace)
        router = next((router for router in known if router.get(key) in classes), None)
        return None if router is None else RouterMetrics(kind=router["kind"], addresses=await _addresses(kube, router))
    except (NotFound, Forbidden):
        return None  # an installation for single namespaces may not read those of others


async def _classes(kube: Kube, traffic: Traffic, *, namespace: str) -> tuple[str, frozenset[str]]:
    """The key of the settings, and the classes that count."""
    match traffic:
        case GatewayTraffic():
            gateways = [
                await kube.get(GATEWAY, namespace=ref.get("namespace", namespace), name=str(ref["name"]))
                for ref in traffic.parent_refs
            ]
            return "gatewayClass", frozenset(str(one["spec"].get("gatewayClassName")) for one in gateways if one)
        case IngressTraffic():
            return "ingressClass", frozenset({traffic.class_name})
        case _:
            return "", frozenset()


async def _addresses(kube: Kube, router: Mapping[str, Any]) -> tuple[str, ...]:
    if router.get("metricsUrl"):
        return (str(router["metricsUrl"]),)
    selector = router["podSelector"]
    labels = ",".join(f"{key}={value}" for key, value in sorted(selector["matchLabels"].items()))
    pods: list[Json] = list(await kube.list(POD, namespace=selector["namespace"], labels=labels))
    ready = [pod for pod in map(parse_pod, pods) if pod.ready and pod.ip]
    path = selector.get("path", "/metrics")
    return tuple(sorted(f"http://{pod.ip}:{selector['port']}{path}" for pod in ready))

"""Which router a spec's `traffic` asks for."""

from lora_operator.api.deployment import GatewayTraffic, IngressTraffic, ServiceTraffic, Traffic
from lora_operator.routing.base import ReadingRouter
from lora_operator.routing.gateway import GatewayRouter
from lora_operator.routing.service import ServiceRouter

__all__ = ["router_for"]


def router_for(traffic: Traffic, *, replicas: int) -> ReadingRouter | None:
    """The router, or None for one that is not built yet (core/rollout/supported.py says so to the user).

    `replicas`: pods that serve, for the router that shares requests by pods.
    """
    match traffic:
        case GatewayTraffic():
            return GatewayRouter(traffic)
        case ServiceTraffic():
            return ServiceRouter(replicas=replicas)
        case IngressTraffic():
            return None

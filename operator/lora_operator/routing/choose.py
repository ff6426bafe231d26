"""Which router a spec's `traffic` asks for."""

from lora_operator.api.deployment import GatewayTraffic, IngressTraffic, ServiceTraffic, Traffic
from lora_operator.routing.base import ReadingRouter
from lora_operator.routing.gateway import GatewayRouter
from lora_operator.routing.service import ServiceRouter

__all__ = ["router_for"]


def router_for(traffic: Traffic) -> ReadingRouter | None:
    """The router, or None for one that is not built yet (core/rollout/supported.py says so to the user)."""
    match traffic:
        case GatewayTraffic():
            return GatewayRouter(traffic)
        case ServiceTraffic():
            return ServiceRouter()
        case IngressTraffic():
            return None

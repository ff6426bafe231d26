"""Which router a spec's `traffic` asks for."""

from lora_operator.api.deployment import GatewayTraffic, IngressTraffic, ServiceTraffic, Traffic
from lora_operator.routing.base import ReadingRouter
from lora_operator.routing.controller import Controllers
from lora_operator.routing.gateway import GatewayRouter
from lora_operator.routing.ingress import IngressRouter
from lora_operator.routing.service import ServiceRouter

__all__ = ["every_router", "router_for"]


def router_for(traffic: Traffic, *, replicas: int, controllers: Controllers | None = None) -> ReadingRouter:
    """The router. `replicas`: pods that serve, for the one that shares requests by pods; `controllers`: None: none is asked."""
    match traffic:
        case GatewayTraffic():
            return GatewayRouter(traffic, controllers=controllers)
        case ServiceTraffic():
            return ServiceRouter(replicas=replicas)
        case IngressTraffic():
            return IngressRouter(traffic, controllers=controllers)


def every_router() -> tuple[ReadingRouter, ...]:
    """One of each, to read what an earlier spec left behind."""
    return (
        GatewayRouter(GatewayTraffic(parent_refs=(), hostnames=())),
        IngressRouter(IngressTraffic(class_name="", host="", path="/")),
        ServiceRouter(replicas=1),
    )

"""What a router has counted of the requests that it passed on to each version.

    traefik         traefik_service_requests_total{service,method,code}              traefik_service_request_duration_seconds
    ingress-nginx   nginx_ingress_controller_requests{namespace,service,method,status}   nginx_ingress_controller_request_duration_seconds

A router sees what no pod can count: that nobody took the connection, or that it broke. Only POST counts, so health checks and lists of
models do not. Envoy Gateway is not here: it counts all versions of a rule together.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lora_operator.api.analysis import Of
from lora_operator.core.analysis.counters import Counters
from lora_operator.core.analysis.series import Series, histogram_of

__all__ = ["KINDS", "Backend", "names_of", "router_counters"]

KINDS = ("traefik", "ingress-nginx")


@dataclass(frozen=True)
class Backend:
    """The Service of one version behind the route of one LoRADeployment."""

    namespace: str
    route: str
    service: str


@dataclass(frozen=True)
class _Dialect:
    requests: str
    buckets: str
    code: str  # the label with the HTTP status
    belongs: Callable[[Backend], Callable[[Mapping[str, str]], bool]]


def _of_traefik(backend: Backend) -> Callable[[Mapping[str, str]], bool]:
    """Its names for a backend of an HTTPRoute's rule, and of an Ingress (`-http` is our port's name)."""
    namespace, route, service = (re.escape(part) for part in (backend.namespace, backend.route, backend.service))
    gateway = rf"httproute-{namespace}-{route}-gw-.+-svc-{namespace}-{service}-\d+@kubernetesgateway"
    ingress = rf"{namespace}-{route}(-inference)?(-canary)?-{service}-http@kubernetesingress(nginx)?"
    pattern = re.compile(f"{gateway}|{ingress}")
    return lambda labels: pattern.fullmatch(labels.get("service", "")) is not None


def _of_nginx(backend: Backend) -> Callable[[Mapping[str, str]], bool]:
    return lambda labels: (labels.get("namespace"), labels.get("service")) == (backend.namespace, backend.service)


_DIALECTS = {
    "traefik": _Dialect(
        requests="traefik_service_requests_total",
        buckets="traefik_service_request_duration_seconds_bucket",
        code="code",
        belongs=_of_traefik,
    ),
    "ingress-nginx": _Dialect(
        requests="nginx_ingress_controller_requests",
        buckets="nginx_ingress_controller_request_duration_seconds_bucket",
        code="status",
        belongs=_of_nginx,
    ),
}


def names_of(kind: str) -> tuple[str, str]:
    """The series to read; `kind` is one of KINDS."""
    return _DIALECTS[kind].requests, _DIALECTS[kind].buckets


def router_counters(series: Iterable[Series], *, kind: str, backend: Backend) -> Counters | None:
    """Of one version; None where the router has not passed a request on to it yet."""
    dialect = _DIALECTS[kind]
    belongs = dialect.belongs(backend)
    mine = [
        line
        for line in series
        if line.labels.get("method") == "POST" and math.isfinite(line.value) and belongs(line.labels)
    ]
    requests = [line for line in mine if line.name == dialect.requests]
    if not requests:
        return None
    times = histogram_of(line for line in mine if line.name == dialect.buckets)
    return Counters(
        requests=sum(line.value for line in requests),
        errors=sum(line.value for line in requests if line.labels.get(dialect.code, "").startswith("5")),
        times={Of.DURATION: times} if times.buckets else {},
    )

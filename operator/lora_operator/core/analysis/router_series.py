"""What Traefik has counted of the requests that it passed on to each version.

    traefik_service_requests_total{service,method,code}
    traefik_service_request_duration_seconds_bucket{service,method,code,le}

A router sees what no pod can count: that nobody took the connection, or that it broke. Only POST counts, so health checks and lists of
models do not. Other routers are not here: Envoy Gateway counts all versions of a rule together, ingress-nginx a canary's as the primary's.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lora_operator.api.analysis import Of
from lora_operator.core.analysis.counters import Counters
from lora_operator.core.analysis.series import Series, histogram_of

__all__ = ["KINDS", "NAMES", "Backend", "router_counters"]

KINDS = ("traefik",)
_REQUESTS, _BUCKETS = "traefik_service_requests_total", "traefik_service_request_duration_seconds_bucket"
NAMES = (_REQUESTS, _BUCKETS)


@dataclass(frozen=True)
class Backend:
    """The Service of one version behind the route of one LoRADeployment."""

    namespace: str
    route: str
    service: str
    twin_of: str = ""  # the Service of the version beside which it is a canary

    def named(self) -> re.Pattern[str]:
        """Traefik's names for it: behind a rule of an HTTPRoute; behind an Ingress; behind its twin, named by the primary's Service.

        `-http` is our port's name.
        """
        namespace, route, service = (re.escape(part) for part in (self.namespace, self.route, self.service))
        names = [
            rf"httproute-{namespace}-{route}-gw-.+-svc-{namespace}-{service}-\d+@kubernetesgateway",
            rf"{namespace}-{route}(-inference)?-{service}-http@kubernetesingress(nginx)?",
        ]
        if self.twin_of:
            twin = rf"{namespace}-{route}(-inference)?-{re.escape(self.twin_of)}-http-canary@kubernetesingress(nginx)?"
            names.append(twin)
        return re.compile("|".join(names))


def router_counters(series: Iterable[Series], *, backend: Backend) -> Counters | None:
    """Of one version; None where the router has not passed a request on to it yet."""
    name = backend.named()
    mine = [
        line
        for line in series
        if line.labels.get("method") == "POST"
        and math.isfinite(line.value)
        and name.fullmatch(line.labels.get("service", ""))
    ]
    requests = [line for line in mine if line.name == _REQUESTS]
    if not requests:
        return None
    times = histogram_of(line for line in mine if line.name == _BUCKETS)
    return Counters(
        requests=sum(line.value for line in requests),
        errors=sum(line.value for line in requests if line.labels.get("code", "").startswith("5")),
        times={Of.DURATION: times} if times.buckets else {},
    )

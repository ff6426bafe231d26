"""Which lines of a router's metrics belong to a version, in the names that Traefik gives them."""

import math

import pytest

from lora_operator.api.analysis import Of
from lora_operator.core.analysis.router_series import NAMES, Backend, router_counters
from lora_operator.core.analysis.series import Series

BACKEND = Backend(namespace="shop", route="fin", service="fin-02881739", twin_of="fin-8e0a1464")
GATEWAY = "httproute-shop-fin-gw-infra-public-ep-web-2-046502fbb672bdeb0f9e-svc-shop-fin-02881739-0@kubernetesgateway"
INGRESS = "shop-fin-fin-02881739-http@kubernetesingressnginx"


def traefik(service: str, value: float = 7, *, code: str = "200", method: str = "POST") -> Series:
    labels = {"service": service, "code": code, "method": method, "protocol": "http"}
    return Series("traefik_service_requests_total", labels, value)


@pytest.mark.parametrize(
    ("service", "counts"),
    [
        pytest.param(GATEWAY, True, id="a backend of an HTTPRoute"),
        pytest.param(INGRESS, True, id="the primary Ingress"),
        pytest.param("shop-fin-fin-8e0a1464-http-canary@kubernetesingressnginx", True, id="its twin, by the primary"),
        pytest.param("shop-fin-inference-fin-02881739-http@kubernetesingressnginx", True, id="the rewritten path"),
        pytest.param(
            "shop-fin-inference-fin-8e0a1464-http-canary@kubernetesingress", True, id="its twin on the rewritten path"
        ),
        pytest.param("shop-fin-fin-8e0a1464-http@kubernetesingressnginx", False, id="the primary that it is beside"),
        pytest.param("shop-fin-fin-02881739-http-canary@kubernetesingressnginx", False, id="a twin of its own"),
        pytest.param(GATEWAY.replace("02881739", "8e0a1464"), False, id="another version"),
        pytest.param(GATEWAY.replace("shop", "other"), False, id="another namespace"),
        pytest.param(GATEWAY.replace("-fin-", "-my-fin-"), False, id="a deployment whose name ends alike"),
        pytest.param("shop-fin-fence-fin-02881739-http@kubernetesingressnginx", False, id="the fence"),
        pytest.param("shop-fin-health-fin-02881739-http@kubernetesingressnginx", False, id="health checks"),
        pytest.param("prometheus@internal", False, id="the router's own"),
    ],
)
def test_traefik_names_a_service_by_its_route(service: str, counts: bool) -> None:
    found = router_counters([traefik(service)], backend=BACKEND)
    assert (found is not None and found.requests == 7) is counts


def test_only_5xx_are_errors_and_only_post_counts() -> None:
    lines = [
        traefik(GATEWAY, 90),
        traefik(GATEWAY, 6, code="502"),
        traefik(GATEWAY, 3, code="429"),
        traefik(GATEWAY, 1, code="499"),
        traefik(GATEWAY, 500, method="GET"),
        traefik(GATEWAY, math.nan, code="503"),
    ]
    found = router_counters(lines, backend=BACKEND)
    assert found is not None
    assert (found.requests, found.errors, found.in_flight) == (100, 6, 0)


def test_durations_of_all_codes_are_one_histogram() -> None:
    name = NAMES[1]
    buckets = [
        Series(name, {"service": GATEWAY, "method": "POST", "code": code, "le": edge}, value)
        for code, values in (("200", (4, 9)), ("500", (1, 1)))
        for edge, value in zip(("1.2", "+Inf"), values, strict=True)
    ]
    found = router_counters([traefik(GATEWAY), *buckets], backend=BACKEND)
    assert found is not None
    assert dict(found.time(Of.DURATION).buckets) == {1.2: 5, math.inf: 10}

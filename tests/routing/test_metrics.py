"""Which entry of the settings is the router of a deployment's traffic, and where its processes are read."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from lora_operator.api.deployment import GatewayTraffic, IngressTraffic, ServiceTraffic, Traffic
from lora_operator.api.kinds import GATEWAY, POD, Kind
from lora_operator.core.rollout.observed import RouterMetrics
from lora_operator.kube.errors import Forbidden
from lora_operator.routing.metrics import router_metrics
from lora_operator.settings import BadSettings, parse_settings

URL = "http://traefik.infra:9100/metrics"
ON_GATEWAY = GatewayTraffic(parent_refs=({"name": "public", "namespace": "infra"},), hostnames=())
ON_INGRESS = IngressTraffic(class_name="nginx", host="", path="/")
SELECTOR = {"namespace": "infra", "matchLabels": {"app": "traefik"}, "port": 9100}


def pod(name: str, ip: str, *, ready: bool = True) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    meta = {"name": name, "uid": name, "namespace": "infra", "labels": {"app": "traefik"}}
    return {"metadata": meta, "status": {"podIP": ip, "conditions": [condition]}}


class Cluster:
    """What the function asks a cluster for."""

    def __init__(self, *, forbidden: bool = False, gone: bool = False, empty: bool = False) -> None:
        self.forbidden, self.gone, self.empty = forbidden, gone, empty

    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> dict[str, Any] | None:
        assert (kind, namespace, name) == (GATEWAY, "infra", "public")
        if self.forbidden:
            raise Forbidden("gateways")
        return None if self.gone else {"spec": {"gatewayClassName": "traefik"}}

    async def list(self, kind: Kind, *, namespace: str, labels: str) -> list[dict[str, Any]]:
        assert (kind, namespace, labels) == (POD, "infra", "app=traefik")
        return (
            []
            if self.empty
            else [pod("b", "10.0.0.2"), pod("a", "10.0.0.1"), pod("c", "10.0.0.3", ready=False), pod("d", "")]
        )


def found(traffic: Traffic, *routers: Mapping[str, Any], cluster: Cluster | None = None) -> RouterMetrics | None:
    asked = router_metrics(cluster or Cluster(), traffic, namespace="shop", routers=routers)  # type: ignore[arg-type]
    return asyncio.run(asked)


@pytest.mark.parametrize(
    ("traffic", "router", "addresses"),
    [
        pytest.param(ON_GATEWAY, {"gatewayClass": "traefik", "metricsUrl": URL}, (URL,), id="a Gateway of its class"),
        pytest.param(ON_INGRESS, {"ingressClass": "nginx", "metricsUrl": URL}, (URL,), id="an Ingress of its class"),
        pytest.param(ON_GATEWAY, {"gatewayClass": "other", "metricsUrl": URL}, None, id="another class"),
        pytest.param(ON_GATEWAY, {"ingressClass": "traefik", "metricsUrl": URL}, None, id="the other kind of class"),
        pytest.param(ON_GATEWAY, {"gatewayClass": "traefik", "url": URL}, None, id="an entry without metrics"),
        pytest.param(ServiceTraffic(), {"gatewayClass": "traefik", "metricsUrl": URL}, None, id="a plain Service"),
        pytest.param(
            ON_GATEWAY,
            {"gatewayClass": "traefik", "podSelector": SELECTOR},
            ("http://10.0.0.1:9100/metrics", "http://10.0.0.2:9100/metrics"),
            id="each ready pod of the router",
        ),
    ],
)
def test_the_router_of_the_traffics_class(
    traffic: Traffic, router: Mapping[str, Any], addresses: tuple[str, ...] | None
) -> None:
    wanted = None if addresses is None else RouterMetrics(addresses=addresses)
    assert found(traffic, {"kind": "traefik", **router}) == wanted


@pytest.mark.parametrize(
    ("cluster", "router", "says"),
    [
        pytest.param(Cluster(forbidden=True), {"metricsUrl": URL}, "gateways", id="a Gateway that may not be read"),
        pytest.param(
            Cluster(gone=True), {"metricsUrl": URL}, "Gateway infra/public does not exist", id="a Gateway that is gone"
        ),
        pytest.param(
            Cluster(empty=True),
            {"podSelector": SELECTOR},
            "no pod with app=traefik is ready",
            id="no pod of the router",
        ),
    ],
)
def test_what_cannot_be_found_out_is_a_problem_and_no_reason_to_count_elsewhere(
    cluster: Cluster, router: Mapping[str, Any], says: str
) -> None:
    metrics = found(ON_GATEWAY, {"kind": "traefik", "gatewayClass": "traefik", **router}, cluster=cluster)
    assert metrics is not None
    assert metrics.addresses == ()
    assert says in metrics.problem


@pytest.mark.parametrize(
    ("router", "says"),
    [
        pytest.param({"gatewayclass": "x"}, "routers[0]: unknown key 'gatewayclass'", id="an unknown key"),
        pytest.param(
            {"gatewayClass": "eg", "kind": "envoy-gateway", "metricsUrl": URL},
            "routers[0].metricsUrl: found a router of kind 'envoy-gateway', expected traefik",
            id="a router that does not tell versions apart",
        ),
        pytest.param(
            {"kind": "traefik", "metricsUrl": URL, "podSelector": SELECTOR},
            "routers[0]: found metricsUrl and podSelector",
            id="two sources",
        ),
        pytest.param(
            {"kind": "traefik", "podSelector": {"namespace": "infra", "matchLabels": {"app": "traefik"}}},
            "routers[0].podSelector.port: found nothing",
            id="pods without a port",
        ),
    ],
)
def test_settings_that_cannot_be_read_are_refused(router: Mapping[str, Any], says: str) -> None:
    with pytest.raises(BadSettings) as error:
        parse_settings({"routers": [router]}, operator_image="o", job_image="j", image_pull_policy="Always")
    assert says in str(error.value)

"""What a Gateway's implementation lacks is said before a pod is started, with the class and the way out."""

from typing import Any

import pytest

from lora_operator.api.deployment import GatewayTraffic
from lora_operator.api.kinds import DEPLOYMENT, GATEWAY, GATEWAY_CLASS, HTTP_ROUTE, Kind
from lora_operator.kube.errors import Forbidden, NotFound
from lora_operator.routing.capability import lack_of
from tests.fakes.cluster import Cluster
from tests.fakes.rollout_driver import started

Json = dict[str, Any]
REF = {"name": "public", "namespace": "infra", "sectionName": "web"}
TRAFFIC = GatewayTraffic(parent_refs=(REF,), hostnames=())
ALL = ["HTTPRoute", "HTTPRoutePathRewrite"]


def cluster_with(
    *, features: list[Any] | None = None, controller: str = "example.com/c", accepted: str = "True"
) -> Cluster:
    cluster = Cluster()
    spec = {"gatewayClassName": "other", "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}]}
    cluster.edit(GATEWAY, "public", lambda obj: obj.update(spec=spec))
    condition = {"type": "Accepted", "status": accepted, "reason": "Unsupported", "message": "no such version"}
    status = {"conditions": [condition], "supportedFeatures": [{"name": name} for name in features or ()]}
    cluster.put(
        GATEWAY_CLASS, {"metadata": {"name": "other"}, "spec": {"controllerName": controller}, "status": status}
    )
    return cluster


async def lack(cluster: Cluster, *, rewrites: bool = True, cookie: bool = False, routers: Any = ()) -> str:
    found = await lack_of(cluster, TRAFFIC, namespace="shop", rewrites=rewrites, cookie=cookie, routers=routers)
    return "" if found is None else f"{found.reason}: {found.message}"


@pytest.mark.parametrize(
    ("features", "rewrites", "refused"),
    [
        pytest.param(ALL, True, False, id="it lists rewrites"),
        pytest.param(["HTTPRoute"], True, True, id="it lists other features alone"),
        pytest.param(["HTTPRoute"], False, False, id="nothing has to be rewritten"),
        pytest.param([], True, False, id="it lists nothing, so nothing is known"),
    ],
)
async def test_rewrites_are_a_feature(features: list[str], rewrites: bool, refused: bool) -> None:
    said = await lack(cluster_with(features=features), rewrites=rewrites)
    assert (
        said.startswith(
            "RouterLacksFeature: spec.traffic.gateway: GatewayClass other does not list HTTPRoutePathRewrite"
        )
        is refused
    )
    assert bool(said) is refused


@pytest.mark.parametrize(
    ("features", "routers", "refused"),
    [
        pytest.param(
            ALL,
            [{"gatewayClass": "other", "url": "http://x"}],
            True,
            id="routes are confirmed by a header it cannot add",
        ),
        pytest.param(
            ALL, [{"gatewayClass": "more", "url": "http://x"}], True, id="all routes carry the fence, whoever is asked"
        ),
        pytest.param(ALL, [{"gatewayClass": "other"}], False, id="nobody is asked"),
        pytest.param(
            ALL, [{"ingressClass": "nginx", "url": "http://x"}], False, id="Ingress controllers alone are asked"
        ),
        pytest.param(
            [*ALL, "HTTPRouteResponseHeaderModification"],
            [{"gatewayClass": "other", "url": "http://x"}],
            False,
            id="it can",
        ),
        pytest.param(
            [], [{"gatewayClass": "other", "url": "http://x"}], False, id="it lists nothing, so nothing is known"
        ),
    ],
)
async def test_a_header_of_the_answer_is_a_feature(features: list[str], routers: Any, refused: bool) -> None:
    said = await lack(cluster_with(features=features), routers=routers)
    assert (
        "RouterLacksFeature: spec.traffic.gateway: GatewayClass other does not list HTTPRouteResponse" in said
    ) is refused
    assert bool(said) is refused


@pytest.mark.parametrize(
    ("controller", "routers", "refused"),
    [
        pytest.param("traefik.io/gateway-controller", (), False, id="Traefik"),
        pytest.param("gateway.envoyproxy.io/gatewayclass-controller", (), False, id="Envoy Gateway"),
        pytest.param("example.com/c", (), True, id="one that nobody knows"),
        pytest.param(
            "example.com/c", ({"gatewayClass": "other", "kind": "traefik"},), False, id="one that the settings know"
        ),
        pytest.param(
            "example.com/c", ({"gatewayClass": "mine", "kind": "traefik"},), True, id="the settings know another"
        ),
        pytest.param(
            "example.com/c", ({"gatewayClass": "other", "kind": "ingress-nginx"},), True, id="of a kind that does not"
        ),
    ],
)
async def test_a_cookie_needs_an_implementation_known_for_expressions(
    controller: str, routers: Any, refused: bool
) -> None:
    said = await lack(cluster_with(features=ALL, controller=controller), cookie=True, routers=routers)
    assert bool(said) is refused
    assert not refused or "GatewayClass other (controller example.com/c)" in said


async def test_a_class_that_nobody_looks_after_is_named() -> None:
    said = await lack(cluster_with(accepted="False"))
    assert said.startswith(
        "RouteNotAccepted: spec.traffic.gateway: GatewayClass other is not accepted by its controller (Unsupported: "
    )


async def test_a_gateway_that_is_missing_is_left_to_the_router() -> None:
    assert await lack(Cluster(gateway=False)) == ""


async def test_classes_that_may_not_be_read_refuse_nothing_but_a_cookie() -> None:
    cluster = cluster_with(features=["HTTPRoute"])
    readable = cluster.get

    async def get(kind: Any, *, namespace: str | None, name: str) -> Json | None:
        if kind is GATEWAY_CLASS:
            raise Forbidden("gatewayclasses")
        return await readable(kind, namespace=namespace, name=name)

    cluster.get = get  # type: ignore[method-assign]
    assert await lack(cluster) == ""
    assert "controller unknown" in await lack(cluster, cookie=True)


def test_without_the_gateway_api_nothing_is_started_and_it_is_looked_for_again() -> None:
    cluster = Cluster()
    cluster.missing.add(HTTP_ROUTE)
    driver = started(cluster)
    driver.look(5)
    ready = driver.condition("Ready")
    assert (ready["reason"], driver.condition("Stalled")["status"]) == ("GatewayNotFound", "True")
    assert "install the Gateway API" in ready["message"]
    assert cluster.every(DEPLOYMENT) == []
    cluster.missing.clear()
    driver.run()
    assert driver.status["phase"] == "Stable"


async def test_whether_there_are_routes_at_all_is_asked_without_reading_those_of_a_thousand_others() -> None:
    cluster, read = cluster_with(features=ALL), []
    cluster.put(HTTP_ROUTE, {"metadata": {"name": "of-another", "labels": {"loraops.dev/deployment": "another"}}})
    listed = cluster.list

    async def counted(kind: Kind, *, namespace: str | None = None, labels: str = "") -> list[Json]:
        found = await listed(kind, namespace=namespace, labels=labels)
        read.extend(found)
        return found

    cluster.list = counted  # type: ignore[method-assign]
    assert (await lack(cluster), read) == ("", [])


async def test_the_simulated_api_server_tells_a_missing_kind_from_an_empty_one() -> None:
    cluster = Cluster()
    assert await cluster.list(HTTP_ROUTE) == []
    cluster.missing.add(HTTP_ROUTE)
    with pytest.raises(NotFound):
        await cluster.list(HTTP_ROUTE)

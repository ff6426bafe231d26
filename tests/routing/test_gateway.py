"""The Gateway API router: what is read from an HTTPRoute's status, when a shift counts as confirmed, where clients reach it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from lora_operator.api.deployment import GatewayTraffic
from lora_operator.api.kinds import GATEWAY, HTTP_ROUTE
from lora_operator.core.build.httproute import build_http_route
from lora_operator.core.build.owner import Owner
from lora_operator.core.plan import Apply, Delete
from lora_operator.routing.gateway import GatewayRouter, shares_of
from tests.fakes.cluster import Cluster

Json = dict[str, Any]
OWNER = Owner(namespace="shop", name="fin", uid="uid-fin")
REF = {"name": "public", "namespace": "infra", "sectionName": "web"}
TRAFFIC = GatewayTraffic(parent_refs=(REF,), hostnames=("fin.example.com",))
ROUTES = {"/v1/chat/completions": "/v1/chat/completions", "/api/v1/health": "/health"}
WEIGHTS = {"aaaaaaaa": 95, "bbbbbbbb": 5}


def route(*, weights: dict[str, int] | None = None, status: Json | None = None) -> Json:
    manifest = build_http_route(OWNER, TRAFFIC, routes=ROUTES, weights=WEIGHTS if weights is None else weights)
    meta = manifest["metadata"] | {"uid": "uid-route", "generation": 4}
    return manifest | {"metadata": meta, "status": accepted() if status is None else status}


def accepted(*, generation: int = 4, **verdicts: str) -> Json:
    conditions = [
        {
            "type": kind,
            "status": verdicts.get(kind, "True"),
            "reason": "Because",
            "message": "said so",
            "observedGeneration": generation,
        }
        for kind in ("Accepted", "ResolvedRefs")
    ]
    return {"parents": [{"parentRef": {"group": "gateway.networking.k8s.io", **REF}, "conditions": conditions}]}


async def read(live: Json, *, gateways: int = 1, fresh: bool = True) -> Any:
    cluster = Cluster(gateway=bool(gateways))
    cluster.put(HTTP_ROUTE, live)
    if gateways:
        cluster.remove(GATEWAY, "public")
        listeners = [
            {"name": "web", "port": 8000, "protocol": "HTTP"},
            {"name": "tls", "port": 443, "protocol": "HTTPS"},
        ]
        cluster.put(GATEWAY, {"metadata": {"name": "public"}, "spec": {"listeners": listeners}})
    return await GatewayRouter(TRAFFIC).read(
        cluster, owner=OWNER, cached={OWNER.name: copy.deepcopy(live)}, fresh=fresh
    )


@pytest.mark.parametrize(
    ("status", "confirmed", "reason", "words"),
    [
        pytest.param(accepted(), True, "Stable", "", id="accepted and resolved for this generation"),
        pytest.param(
            accepted(generation=3),
            False,
            "Promoting",
            "not taken the route yet",
            id="an older generation is not this one",
        ),
        pytest.param({}, False, "Promoting", "not taken the route yet", id="a silent controller is waited for"),
        pytest.param(
            accepted(Accepted="False"),
            False,
            "RouteNotAccepted",
            "Because: said so",
            id="a listener that does not allow us",
        ),
        pytest.param(
            accepted(ResolvedRefs="False"),
            False,
            "RouteNotAccepted",
            "ResolvedRefs is False",
            id="a backend that does not resolve",
        ),
    ],
)
async def test_a_shift_is_confirmed_by_the_controller(status: Json, confirmed: bool, reason: str, words: str) -> None:
    state = await read(route(status=status))
    verdict = GatewayRouter(TRAFFIC).verify(OWNER, route=state, weights=WEIGHTS)
    assert (verdict.confirmed, str(verdict.reason)) == (confirmed, reason)
    assert words in verdict.message


async def test_another_parents_acceptance_is_not_ours() -> None:
    status = accepted()
    status["parents"][0]["parentRef"]["name"] = "private"
    assert (await read(route(status=status))).accepted is False


async def test_a_missing_gateway_is_named() -> None:
    state = await read(route(status={}), gateways=0)
    assert str(state.reason) == "GatewayNotFound"
    assert "infra/public" in state.message


async def test_endpoints_carry_scheme_and_port_of_the_listener() -> None:
    assert (await read(route())).endpoints == ("http://fin.example.com:8000/v1/chat/completions",)


async def test_weights_other_than_wanted_are_not_confirmed() -> None:
    state = await read(route(weights={"aaaaaaaa": 100}))
    assert GatewayRouter(TRAFFIC).verify(OWNER, route=state, weights=WEIGHTS).confirmed is False


async def test_a_route_that_is_gone_confirms_the_wish_for_none() -> None:
    assert GatewayRouter(TRAFFIC).verify(OWNER, route=None, weights={}).confirmed is True
    assert GatewayRouter(TRAFFIC).verify(OWNER, route=await read(route()), weights={}).confirmed is False


def _reweigh(live: Json) -> None:
    live["spec"]["rules"][1]["backendRefs"][0]["weight"] = 7


def _drop_rule(live: Json) -> None:
    live["spec"]["rules"].pop()


def _default_weight(live: Json) -> None:
    for rule in live["spec"]["rules"]:
        del rule["backendRefs"][0]["weight"]


@pytest.mark.parametrize(
    ("edit", "shares"),
    [
        pytest.param(lambda _: None, WEIGHTS, id="as written"),
        pytest.param(_reweigh, {}, id="rules that disagree say nothing"),
        pytest.param(_drop_rule, WEIGHTS, id="one rule less still says it"),
        pytest.param(_default_weight, {"aaaaaaaa": 1, "bbbbbbbb": 5}, id="a missing weight is one"),
    ],
)
def test_shares_are_read_from_every_rule(edit: Callable[[Json], None], shares: dict[str, int]) -> None:
    live = copy.deepcopy(route())
    edit(live)
    assert shares_of(live, owner=OWNER) == shares


async def test_writing_is_one_whole_apply_and_nothing_when_it_is_there() -> None:
    router = GatewayRouter(TRAFFIC)
    revision: Any = type("R", (), {"routes": ROUTES})()
    state = await read(route())
    assert router.write(OWNER, route=state, revision=revision, weights=WEIGHTS) == ()
    (effect,) = router.write(OWNER, route=state, revision=revision, weights={"bbbbbbbb": 100})
    assert isinstance(effect, Apply)
    assert effect.owned is True
    assert shares_of(effect.manifest, owner=OWNER) == {"bbbbbbbb": 100}
    (gone,) = router.write(OWNER, route=state, revision=None, weights={})
    assert isinstance(gone, Delete)
    assert gone.uid == "uid-route"


async def test_a_foreign_route_is_neither_written_nor_deleted() -> None:
    live = route()
    live["metadata"]["ownerReferences"][0]["uid"] = "somebody else"
    state = await read(live)
    revision: Any = type("R", (), {"routes": ROUTES})()
    for weights in ({}, WEIGHTS):
        assert GatewayRouter(TRAFFIC).write(OWNER, route=state, revision=revision, weights=weights) == ()


async def test_rules_that_disagree_still_name_every_backend() -> None:
    live = route()
    live["spec"]["rules"][0]["backendRefs"] = live["spec"]["rules"][0]["backendRefs"][:1]
    state = await read(live)
    assert (state.weights, state.named) == ({}, frozenset(WEIGHTS))

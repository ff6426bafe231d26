"""A shift is confirmed once the controller serves it, not when the API server holds it or says Accepted: by Gateway and Ingress."""

from typing import Any

import pytest

from lora_operator.api.kinds import HTTP_ROUTE, INGRESS
from lora_operator.routing.controller import Reply
from tests.fakes.cluster import Cluster
from tests.fakes.rollout_driver import Driver, ask, candidate, point_to, replicas, served, shares, stable, started

Json = dict[str, Any]
URL = "http://traefik:8000"
TRAFFIC: dict[str, Json | None] = {
    "Gateway": None,
    "Ingress": {"ingress": {"className": "nginx", "host": "x.example.com"}},
}
ROUTERS: list[Json] = [
    {"gatewayClass": "traefik", "kind": "traefik", "url": URL},
    {"ingressClass": "nginx", "kind": "traefik", "url": URL},
]
BLUE_GREEN: Json = {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 0, "keepPreviousSeconds": 0}}
STEPS: Json = {"type": "Canary", "canary": {"steps": [{"setWeight": 25}, {"pause": {}}]}}
HEADER: Json = {
    "type": "ABTest",
    "abTest": {
        "split": {"stable": 70, "candidate": 30},
        "successMetrics": ["conversion"],
        "match": {"header": {"name": "x-variant", "value": "b"}},
    },
}
CONVERSION: Json = {
    "source": {"prometheus": {"address": "http://prometheus:9090"}},
    "metrics": [{"name": "conversion", "query": "conversion", "direction": "HigherIsBetter"}],
}
by_each = pytest.mark.parametrize("kind", ["Gateway", "Ingress"])


def serving(kind: str, strategy: Json, **spec: Any) -> Driver:
    """v1 serves, and the settings say where the controllers answer."""
    return stable(cluster_gpus=8, replicas=2, traffic=TRAFFIC[kind], strategy=strategy, routers=ROUTERS, **spec)


def takes(cluster: Cluster, *, on: bool) -> None:
    """Whether the controllers serve what is written; the Gateway's says Accepted in any case."""
    cluster.ingress_takes = on
    cluster.gateway_serves = on


def fences(cluster: Cluster) -> list[Json]:
    """Rules of the HTTPRoute that are fences, and Ingresses that are."""
    rules = [rule for route in cluster.every(HTTP_ROUTE) for rule in route["spec"]["rules"]]
    mine = [rule for rule in rules if any("responseHeaderModifier" in one for one in rule.get("filters", ()))]
    return mine + [ingress for ingress in cluster.every(INGRESS) if ingress["metadata"]["name"] == "fin-fence"]


@by_each
def test_nothing_is_confirmed_before_the_controller_answers(kind: str) -> None:
    cluster = Cluster()
    takes(cluster, on=False)
    driver = started(cluster, traffic=TRAFFIC[kind], routers=ROUTERS)
    driver.until("Promoting")
    driver.look(20)
    assert driver.status["phase"] == "Promoting"
    written = {"Gateway": "HTTPRoute", "Ingress": "Ingresses"}[kind]
    said = f"the controller at {URL} has not taken the {written} yet (HTTP 404)"
    assert driver.condition("Ready")["message"] == said
    takes(cluster, on=True)
    driver.run()
    assert (driver.status["phase"], driver.condition("Ready")["status"]) == ("Stable", "True")


@by_each
def test_a_controller_that_is_late_holds_up_the_drain_of_what_it_still_serves_t6(kind: str) -> None:
    driver = serving(kind, BLUE_GREEN)
    takes(driver.cluster, on=False)
    point_to(driver, "v2")
    driver.until("Switching", sub="Shift")
    driver.look(200)
    assert (driver.status["phase"], replicas(driver)) == ("Switching", {"v1": 2, "v2": 2})
    takes(driver.cluster, on=True)
    driver.run()
    assert (served(driver), replicas(driver)) == ("v2", {"v1": 0, "v2": 2})


@by_each
def test_a_controller_that_is_late_holds_up_the_way_back_too_t6(kind: str) -> None:
    driver = serving(kind, STEPS)
    driver.run(lambda: point_to(driver, "v2"))
    takes(driver.cluster, on=False)
    ask(driver, "abort", f"{candidate(driver)}/1")
    driver.until("Aborting", sub="Shift")
    driver.look(200)
    assert (driver.status["phase"], shares(driver)) == ("Aborting", {"v1": 100})
    assert replicas(driver)["v2"] > 0, "it may still be asked"
    takes(driver.cluster, on=True)
    driver.run()
    assert (driver.status["phase"], replicas(driver)) == ("Aborted", {"v1": 2, "v2": 0})


@by_each
def test_the_fence_leads_to_the_version_that_gains(kind: str) -> None:
    driver = serving(kind, STEPS)
    old = driver.status["stable"]["revision"]
    driver.run(lambda: point_to(driver, "v2"))
    new = candidate(driver)
    assert [new in str(fence) for fence in fences(driver.cluster)] == [True]
    assert [old in str(fence) for fence in fences(driver.cluster)] == [False]
    driver.run(lambda: ask(driver, "abort", f"{new}/1"))
    assert [old in str(fence) for fence in fences(driver.cluster)] == [True]


@by_each
def test_a_split_and_a_split_with_forced_requests_have_different_fences(kind: str) -> None:
    driver = serving(kind, HEADER, analysis=CONVERSION)
    before = fences(driver.cluster)
    point_to(driver, "v2")
    driver.until("Testing", sub="Test")
    during = fences(driver.cluster)
    driver.edit(lambda spec: spec["strategy"]["abTest"]["match"]["header"].update(value="c"))
    driver.look(5)
    assert driver.status["phase"] == "Testing"
    assert len({str(found) for found in (before, during, fences(driver.cluster))}) == 3
    assert len(fences(driver.cluster)) == 1


@by_each
def test_a_controller_that_cannot_be_asked_is_named_with_its_setting(kind: str) -> None:
    cluster = Cluster()

    async def refused(url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
        return "ClientConnectorError: refused"

    cluster.ask = refused  # type: ignore[method-assign]
    driver = started(cluster, traffic=TRAFFIC[kind], routers=ROUTERS)
    driver.until("Promoting")
    driver.look(3)
    assert driver.condition("Ready")["reason"] == "RouteNotAccepted"
    said = driver.condition("Ready")["message"]
    assert f"does not answer at {URL} (ClientConnectorError: refused)" in said
    assert "routers[].url" in said


@by_each
def test_a_fence_that_the_settings_no_longer_ask_for_goes(kind: str) -> None:
    driver = serving(kind, BLUE_GREEN)
    assert len(fences(driver.cluster)) == 1
    Driver(driver.cluster).run()
    assert fences(driver.cluster) == []


@by_each
def test_once_it_is_confirmed_nobody_is_asked_and_nothing_is_written(kind: str) -> None:
    driver = serving(kind, BLUE_GREEN)
    asked: list[str] = []

    async def counted(url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
        asked.append(host)
        return Reply(status=200, mark=mark)

    driver.cluster.ask = counted  # type: ignore[method-assign]
    driver.restart()
    before = list(driver.cluster.writes)
    driver.look(20)
    assert (asked, driver.cluster.writes) == ([], before)


def test_an_answer_of_another_route_is_not_the_fences() -> None:
    """A catch-all route of the same host answers everything with 200."""
    cluster = Cluster()

    async def catch_all(url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
        return Reply(status=200)

    cluster.ask = catch_all  # type: ignore[method-assign]
    driver = started(cluster, routers=ROUTERS)
    driver.until("Promoting")
    driver.look(5)
    assert driver.status["phase"] == "Promoting"
    assert "has not taken the HTTPRoute yet (HTTP 200)" in driver.condition("Ready")["message"]


def test_a_gateway_of_a_class_that_the_settings_do_not_name_is_confirmed_by_its_word() -> None:
    driver = started(Cluster(), routers=[{"gatewayClass": "another", "kind": "traefik", "url": URL}])
    driver.cluster.gateway_serves = False
    driver.run()
    assert (driver.status["phase"], driver.condition("Ready")["status"]) == ("Stable", "True")
    assert fences(driver.cluster) == [], "it may not know a fence's filter"

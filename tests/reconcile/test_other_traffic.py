"""Another kind of spec.traffic, at rest and in the middle of a rollout: requests always have a route, and no pod goes that one names.

The cluster checks T1, T2 and T6 at every write against all routes that exist, the former one included.
"""

from typing import Any

import pytest

from lora_operator.api.kinds import HTTP_ROUTE, INGRESS, SERVICE
from tests.fakes.cluster import Cluster
from tests.fakes.rollout_driver import NAME, Driver, ask, candidate, point_to, replicas, served, shares, stable
from tests.fakes.rollout_driver import started as begun

Json = dict[str, Any]
CANARY: Json = {"type": "Canary", "canary": {"steps": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}]}}
TRAFFIC: dict[str, Json] = {
    "gateway": {"gateway": {"parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}]}},
    "ingress": {"ingress": {"className": "nginx", "host": "fin.example.com"}},
    "service": {"service": {}},
}
KINDS = {"gateway": HTTP_ROUTE, "ingress": INGRESS, "service": SERVICE}
CHANGES = [(old, new) for old in TRAFFIC for new in TRAFFIC if old != new]
IDS = [f"{old} to {new}" for old, new in CHANGES]


def serving(kind: str) -> Driver:
    """v1 serves with 4 pods under Canary."""
    return stable(cluster_gpus=16, replicas=4, strategy=CANARY, traffic=TRAFFIC[kind])


def change(driver: Driver, kind: str) -> None:
    """`kubectl edit`: another kind of traffic."""
    driver.edit(lambda spec: spec.update(traffic=TRAFFIC[kind]))


def exists(driver: Driver, kind: str) -> bool:
    return driver.cluster.peek(KINDS[kind], NAME) is not None


@pytest.mark.parametrize(("old", "new"), CHANGES, ids=IDS)
@pytest.mark.parametrize(
    ("verb", "phase", "version", "pods"),
    [
        pytest.param("abort", "Aborted", "v1", {"v1": 4, "v2": 0}, id="abort"),
        pytest.param("promote-full", "Stable", "v2", {"v1": 0, "v2": 4}, id="promote-full"),
    ],
)
def test_in_the_middle_of_a_canary_the_former_route_goes_before_any_pod_that_it_names(
    old: str, new: str, verb: str, phase: str, version: str, pods: Json
) -> None:
    driver = serving(old)
    driver.run(lambda: point_to(driver, "v2"))
    change(driver, new)
    ask(driver, verb, f"{candidate(driver)}/1")
    driver.run()
    assert (driver.status["phase"], served(driver), replicas(driver)) == (phase, version, pods)
    assert (shares(driver), exists(driver, old), exists(driver, new)) == ({version: 100}, False, True)


@pytest.mark.parametrize(("old", "new"), CHANGES, ids=IDS)
def test_a_held_canary_keeps_its_weight_through_the_new_route(old: str, new: str) -> None:
    driver = serving(old)
    driver.run(lambda: point_to(driver, "v2"))
    driver.run(lambda: change(driver, new))
    assert (driver.status["phase"], shares(driver)) == ("Paused", {"v1": 75, "v2": 25})
    assert (exists(driver, old), exists(driver, new)) == (False, True)


@pytest.mark.parametrize("old", ["ingress", "service"])
def test_the_former_route_serves_until_the_gateway_took_the_new_one(old: str) -> None:
    driver = serving(old)
    driver.cluster.gateway_takes = False
    change(driver, "gateway")
    for _ in range(20):
        driver.look()
        assert exists(driver, old)
    assert (exists(driver, "gateway"), driver.condition("Ready")["status"]) == (True, "False")
    driver.cluster.gateway_takes = True
    driver.run()
    assert (exists(driver, old), driver.condition("Ready")["status"]) == (False, "True")


def test_twins_that_disagree_still_name_the_candidate_and_its_pods_stay_until_they_are_gone() -> None:
    driver = serving("ingress")
    driver.run(lambda: point_to(driver, "v2"))
    twin = driver.cluster.peek(INGRESS, "fin-health-canary")
    assert twin is not None
    ask(driver, "abort", f"{candidate(driver)}/1")
    driver.until("Aborting", sub="Drain")
    driver.cluster.tick(120)
    driver.cluster.put(INGRESS, twin)
    driver.look()
    assert replicas(driver)["v2"] == 1
    assert driver.cluster.peek(INGRESS, "fin-health-canary") is None


def test_ingresses_that_cannot_rewrite_a_path_are_refused_and_the_gateway_goes_on_with_all_paths() -> None:
    cluster = Cluster()
    begun(cluster, traffic=TRAFFIC["gateway"])
    driver = Driver(cluster, profiles={"transformers": {"image": "x", "routes": {"/v1/models": "/models"}}})
    driver.run()
    change(driver, "ingress")
    driver.look(5)
    assert (exists(driver, "gateway"), exists(driver, "ingress")) == (True, False)
    assert (driver.condition("Ready")["reason"], driver.condition("Stalled")["status"]) == ("Invalid", "True")
    assert "found profile transformers, which rewrites /v1/models" in driver.condition("Ready")["message"]
    change(driver, "service")
    driver.run()
    assert (exists(driver, "gateway"), driver.condition("Ready")["status"]) == (False, "True")

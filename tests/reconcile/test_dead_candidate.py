"""A candidate that dies, comes late or never gets its pods: the version that answers keeps what it needs.

The scenarios begin where an earlier check has passed already: in the promotion, behind the deadline, while pods are asked for.
"""

from typing import Any

import pytest

from lora_operator.api.kinds import DEPLOYMENT
from tests.fakes.rollout_driver import NAME, Driver, ask, candidate, point_to, replicas, served, shares, stable

Json = dict[str, Any]
CANARY: Json = {"type": "Canary", "canary": {"steps": [{"setWeight": 25}]}}
BLUE_GREEN: Json = {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 0, "keepPreviousSeconds": 0}}
BY_HAND: Json = {"automatic": False}


def started(strategy: Json, **spec: Any) -> Driver:
    """v1 serves with 4 pods, and v2 was just declared."""
    driver = stable(cluster_gpus=16, replicas=4, strategy=strategy, **spec)
    point_to(driver, "v2")
    return driver


def lose(driver: Driver, name: str) -> None:
    """All pods of that adapter's version go unready."""
    driver.cluster.behaviour = lambda adapter: "never-ready" if adapter == name else "good"


@pytest.mark.parametrize("strategy", [CANARY, BLUE_GREEN, {"type": "Replace"}], ids=["Canary", "BlueGreen", "Replace"])
@pytest.mark.parametrize("takes", [True, False], ids=["a quick Gateway", "a Gateway that never takes the route"])
def test_a_candidate_that_dies_in_the_promotion_is_left_and_never_becomes_stable(strategy: Json, takes: bool) -> None:
    driver = started(strategy)
    driver.until("Switching" if strategy is BLUE_GREEN else "Promoting", sub="Shift")
    driver.cluster.gateway_takes = takes
    lose(driver, "v2")
    driver.until("Aborting")
    driver.cluster.gateway_takes = True
    driver.run()
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "CapacityLost")
    assert (served(driver), shares(driver), replicas(driver)["v1"]) == ("v1", {"v1": 100}, 4)


def test_without_automatic_rollback_a_dead_candidate_is_not_promoted_and_a_person_decides() -> None:
    driver = started(CANARY, rollback=BY_HAND)
    driver.until("Promoting", sub="Shift")
    lose(driver, "v2")
    driver.look(90)
    assert (driver.status["phase"], driver.condition("Ready")["reason"]) == ("Promoting", "CapacityLost")
    assert (driver.condition("Stalled")["status"], replicas(driver)["v1"]) == ("True", 4)
    assert f"loraops.dev/abort={candidate(driver)}/" in driver.condition("Ready")["message"]
    driver.run(lambda: ask(driver, "abort", f"{candidate(driver)}/1"))
    assert (served(driver), shares(driver)) == ("v1", {"v1": 100})


def test_without_automatic_rollback_pods_that_return_are_promoted_after_all() -> None:
    driver = started(CANARY, rollback=BY_HAND)
    driver.until("Promoting", sub="Shift")
    lose(driver, "v2")
    driver.look(20)
    lose(driver, "")
    driver.run()
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


@pytest.mark.parametrize("strategy", [CANARY, BLUE_GREEN, {"type": "Replace"}], ids=["Canary", "BlueGreen", "Replace"])
def test_without_automatic_rollback_a_candidate_that_is_healthy_after_its_deadline_goes_on(strategy: Json) -> None:
    driver = started(strategy, rollback=BY_HAND, progressDeadlineSeconds=120)
    lose(driver, "v2")
    driver.look(150)
    assert driver.condition("Ready")["reason"] == "ProgressDeadlineExceeded"
    lose(driver, "")
    driver.run()
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


def test_pods_that_somebody_else_takes_away_again_are_waited_for_until_the_deadline_only() -> None:
    driver = started({"type": "Canary", "canary": {"steps": [{"setWeight": 25}, {"setWeight": 50}]}})
    driver.until("Stepping", sub="Scale", index=1)
    name, begun = f"{NAME}-{candidate(driver)}", driver.cluster.now
    while driver.status["phase"] == "Stepping":
        driver.look()
        driver.cluster.edit(DEPLOYMENT, name, lambda deployment: deployment["spec"].update(replicas=1))
        assert (driver.cluster.now - begun).total_seconds() < 2000, "never given up"
    assert driver.status["abort"]["reason"] == "ProgressDeadlineExceeded"

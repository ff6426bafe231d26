"""Invariants that belong to no one strategy: stale caches, and clocks that jump."""

import asyncio
import copy
from collections import deque
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from lora_operator.kube.errors import ApiError
from lora_operator.runtime.clock import SystemClock
from tests.fakes.cluster import CACHED, START, Cluster
from tests.fakes.rollout_driver import CONVERSION, Driver, point_to, stable
from tests.reconcile.test_crash import SCENARIOS, final_state

Json = dict[str, Any]
STEPS = [{"setWeight": 50}, {"pause": {"seconds": 60}}]
CANARY: Json = {"type": "Canary", "canary": {"steps": STEPS}}
BLUE_GREEN: Json = {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 60, "keepPreviousSeconds": 600}}
AB_TEST: Json = {
    "type": "ABTest",
    "abTest": {
        "split": {"stable": 50, "candidate": 50},
        "successMetrics": ["conversion"],
        "durationSeconds": 60,
        "match": {"header": {"name": "x-variant", "value": "b"}},
    },
}


def serving(strategy: Json) -> Driver:
    measured = {"analysis": CONVERSION} if strategy["type"] == "ABTest" else {}
    return stable(cluster_gpus=8, replicas=2, strategy=strategy, **measured)


async def alone(strategy: Json) -> Cluster:
    driver = await asyncio.to_thread(serving, strategy)
    point_to(driver, "v2")
    await driver.settle()
    return driver.cluster


async def beside(strategy: Json, *, age: int) -> Cluster:
    """A second operator acts at every moment on what the cluster was `age` reconciles ago."""
    driver = await asyncio.to_thread(serving, strategy)
    cluster = driver.cluster
    second = Driver(cluster)
    past: deque[list[tuple[Any, list[Json]]]] = deque(maxlen=age + 1)
    point_to(driver, "v2")
    for _ in range(400):
        past.append([(kind, copy.deepcopy(cluster.every(kind))) for kind in CACHED])
        await driver.step()
        for kind, objects in past[0]:
            second.cache.replace(kind, objects)
        with suppress(ApiError):  # a conflict is how it learns that it is late
            await second.reconcile()
        cluster.tick()
        cluster.note_traffic()
    await driver.settle()
    return cluster


@pytest.mark.parametrize("age", [1, 3, 8])
@pytest.mark.parametrize("strategy", [CANARY, BLUE_GREEN, AB_TEST], ids=["Canary", "BlueGreen", "ABTest"])
def test_a_second_operator_with_a_stale_cache_changes_nothing_t9(strategy: Json, age: int) -> None:
    def told(cluster: Cluster) -> Json:
        state = final_state(cluster)
        state["status"].pop("history", None)
        return state

    assert told(asyncio.run(beside(strategy, age=age))) == told(asyncio.run(alone(strategy)))


@pytest.mark.parametrize("hours", [1, -1], ids=["an hour ahead", "an hour back"])
@pytest.mark.parametrize("strategy", [CANARY, BLUE_GREEN, AB_TEST], ids=["Canary", "BlueGreen", "ABTest"])
def test_a_clock_that_jumps_ends_nothing_early_t28(strategy: Json, hours: int) -> None:
    driver = serving(strategy)
    cluster = driver.cluster
    jump = timedelta()

    def monotonic() -> float:
        return (cluster.now - START).total_seconds()

    driver.use(SystemClock(wall=lambda: cluster.now + jump, monotonic=monotonic))
    point_to(driver, "v2")
    waits = {"Canary": "Bake", "BlueGreen": "Delay", "ABTest": "Test"}[strategy["type"]]
    driver.look(2)
    for _ in range(60):
        if driver.status["step"]["sub"] == waits:
            break
        driver.look()
    begun, held = cluster.now, driver.status["phase"]
    jump = timedelta(hours=hours)
    driver.look(50)
    assert (driver.status["phase"], driver.status["step"]["sub"]) == (held, waits)
    for _ in range(60):
        if driver.status.get("step", {}).get("sub") != waits:
            break
        driver.look()
    assert timedelta(seconds=58) <= cluster.now - begun <= timedelta(seconds=65)


def test_every_strategy_is_killed_at_every_write_t8() -> None:
    """The scenarios of test_crash.py name all of them, each by at least two routers."""
    said = [(scenario.spec or {}).get("strategy", {}).get("type", "Replace") for scenario in SCENARIOS.values()]
    assert {kind: said.count(kind) >= 2 for kind in ("Replace", "BlueGreen", "Canary", "ABTest")} == dict.fromkeys(
        ("Replace", "BlueGreen", "Canary", "ABTest"), True
    )

"""A resource that is gone costs no more write, whatever its last events and answers left in the cache."""

import asyncio
import copy
from typing import Any

import pytest

from lora_operator.api.kinds import LORA_DEPLOYMENT
from tests.fakes.rollout_driver import NAME, Driver, stable

Json = dict[str, Any]


def deleting(driver: Driver) -> None:
    """The user deleted it: only our finalizer holds it."""
    driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda o: o["metadata"].update(deletionTimestamp="2026-01-01T12:10:00Z"))


def remembered(driver: Driver) -> Json | None:
    return driver.cache.get(LORA_DEPLOYMENT, namespace="shop", name=NAME)


def test_the_answer_of_the_write_that_let_it_go_does_not_bring_it_back() -> None:
    driver = stable()
    deleting(driver)
    for _ in range(600):  # only until it is gone: the next list would hide what the cache remembers
        after = asyncio.run(driver.step())
        if driver.cluster.peek(LORA_DEPLOYMENT, NAME) is None:
            break
        driver.cluster.tick(min(max(after or 1, 1), 30))
    assert driver.cluster.peek(LORA_DEPLOYMENT, NAME) is None
    assert remembered(driver) is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda o: o["spec"].update(replicas="many"), id="when its status is to be written"),
        pytest.param(
            lambda o: o["metadata"].update(deletionTimestamp="2026-01-01T12:10:00Z"),
            id="when it is on its way out",
        ),
    ],
)
def test_a_ghost_in_the_cache_is_forgotten_at_the_first_write_to_it(change: Any) -> None:
    driver = stable()
    ghost = copy.deepcopy(driver.cluster.peek(LORA_DEPLOYMENT, NAME))
    assert ghost is not None
    change(ghost)
    driver.cluster.remove(LORA_DEPLOYMENT, NAME)
    driver.cache.remove(LORA_DEPLOYMENT, ghost)
    driver.cache.put(LORA_DEPLOYMENT, ghost)
    before = len(driver.cluster.writes)
    assert asyncio.run(driver.reconcile()) is None
    assert remembered(driver) is None
    assert asyncio.run(driver.reconcile()) is None
    assert len(driver.cluster.writes) == before + 1

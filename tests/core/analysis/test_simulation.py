"""Seeded runs of whole analyses: a healthy candidate is promoted in at least 99 of 100, a bad one is given up."""

import pytest

from bench.analysis import SCENARIOS, Scenario, simulate

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
HEALTHY = [scenario for scenario in SCENARIOS if scenario.name.startswith("healthy")]


def test_short_runs_promote_the_healthy_and_give_up_the_broken() -> None:
    healthy = simulate(BY_NAME["healthy, weight 5"], runs=100, seed=11)
    assert healthy.promoted >= 99
    broken = simulate(BY_NAME["5 % errors, weight 25"], runs=40, seed=11)
    slow = simulate(BY_NAME["3 times slower, weight 5"], runs=40, seed=11)
    assert (broken.rolled_back, slow.rolled_back) == (40, 40)


@pytest.mark.full
@pytest.mark.parametrize("scenario", HEALTHY, ids=lambda scenario: scenario.name)
def test_of_two_thousand_healthy_candidates_at_least_99_percent_are_promoted(scenario: Scenario) -> None:
    assert simulate(scenario, runs=2000, seed=1).promoted >= 1980


@pytest.mark.full
def test_one_percent_that_became_three_is_found_within_minutes() -> None:
    found = simulate(BY_NAME["3 % errors, weight 25"], runs=500, seed=1)
    assert found.rolled_back >= 400
    assert found.median_seconds <= 300

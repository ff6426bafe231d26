"""Bounds of shares, against scipy and by their coverage."""

import math

import pytest
from scipy import stats

from lora_operator.core.analysis.intervals import lower_share, newcombe_upper, upper_share, wilson

COUNTS = [
    (0, 1),
    (0, 20),
    (1, 20),
    (20, 20),
    (3, 100),
    (50, 100),
    (7, 2_000),
    (999, 1_000),
    (40, 100_000),
    (99_000, 1_000_000),
]
Z95 = 1.6448536269514722


@pytest.mark.parametrize(("events", "of"), COUNTS)
@pytest.mark.parametrize("confidence", [0.95, 0.999])
def test_exact_bounds_are_those_of_scipy(events: int, of: int, confidence: float) -> None:
    exact = stats.binomtest(events, of)
    low = exact.proportion_ci(2 * confidence - 1, method="exact").low
    high = exact.proportion_ci(2 * confidence - 1, method="exact").high
    assert lower_share(events, of, confidence=confidence) == pytest.approx(low, rel=1e-8, abs=1e-12)
    assert upper_share(events, of, confidence=confidence) == pytest.approx(high, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(("events", "of"), COUNTS)
def test_wilson_is_that_of_scipy(events: int, of: int) -> None:
    wanted = stats.binomtest(events, of).proportion_ci(0.9, method="wilson")
    assert wilson(events, of, z=Z95) == pytest.approx((wanted.low, wanted.high), rel=1e-9, abs=1e-12)


def test_newcombe_agrees_with_the_example_of_its_author() -> None:
    """56 of 70 against 48 of 80 (Newcombe 1998, method 10): 95 % interval 0.0524 to 0.3339."""
    z = stats.norm.ppf(0.975)
    assert newcombe_upper(56, 70, base_events=48, base_of=80, z=z) == pytest.approx(0.3339, abs=5e-5)
    assert -newcombe_upper(48, 80, base_events=56, base_of=70, z=z) == pytest.approx(0.0524, abs=5e-5)


def test_nothing_seen_bounds_nothing() -> None:
    assert (lower_share(0, 0, confidence=0.95), upper_share(0, 0, confidence=0.95)) == (0.0, 1.0)
    assert newcombe_upper(0, 0, base_events=0, base_of=50, z=Z95) == 1.0
    assert newcombe_upper(0, 50, base_events=0, base_of=0, z=Z95) == 1.0


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 0.9])
@pytest.mark.parametrize("of", [20, 60, 200])
def test_the_exact_bounds_cover_at_least_as_often_as_they_say(share: float, of: int) -> None:
    masses = [(k, float(stats.binom.pmf(k, of, share))) for k in range(of + 1)]
    below = math.fsum(mass for k, mass in masses if lower_share(k, of, confidence=0.95) <= share)
    above = math.fsum(mass for k, mass in masses if upper_share(k, of, confidence=0.95) >= share)
    assert below >= 0.95
    assert above >= 0.95

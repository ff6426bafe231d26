"""Tests that may be looked at at any time: against scipy, and by how often they raise a false alarm at any of many looks."""

import math
import random
from collections.abc import Iterator

import pytest
from scipy import special, stats

from lora_operator.core.analysis.sequential import (
    NO_EVIDENCE,
    Moments,
    against_bound,
    against_stable,
    lower_mean,
    rate_evidence,
    ratio_evidence,
)


def test_the_evidence_of_one_window_is_the_mixture_of_binomials_that_scipy_computes() -> None:
    window = {"events": 4, "requests": 50, "base_events": 2, "base_requests": 950}
    fine = stats.binom.logpmf(4, 6, 1.1 * 50 / (1.1 * 50 + 950))
    grid = [math.exp(3.5 * 0.7 * (i + 0.5) / 60) for i in range(60)]
    weights = [math.exp(-0.5 * (math.log(excess) / 0.7) ** 2) for excess in grid]
    there = [stats.binom.logpmf(4, 6, 1.1 * e * 50 / (1.1 * e * 50 + 950)) for e in grid]
    wanted = special.logsumexp([there_ - fine for there_ in there], b=[w / sum(weights) for w in weights])
    assert rate_evidence(against_stable(NO_EVIDENCE, **window, ratio=1.1)) == pytest.approx(wanted, rel=1e-12)


def test_no_window_and_a_window_without_events_are_no_evidence() -> None:
    assert rate_evidence(NO_EVIDENCE) == pytest.approx(0.0, abs=1e-12)
    silent = against_stable(NO_EVIDENCE, events=0, requests=50, base_events=0, base_requests=950, ratio=1.1)
    alone = against_stable(NO_EVIDENCE, events=5, requests=50, base_events=0, base_requests=0, ratio=1.1)
    assert silent == alone == NO_EVIDENCE


def _binomial(source: random.Random, of: int, share: float) -> int:
    return sum(source.random() < share for _ in range(of))


def _false_alarms(runs: Iterator[float], *, alpha: float) -> float:
    highest = list(runs)
    return sum(value >= math.log(1 / alpha) for value in highest) / len(highest)


@pytest.mark.parametrize("ratio", [1.0, 1.1], ids=["at the edge of what is fine", "well inside"])
def test_the_chance_of_a_false_alarm_over_all_looks_together_is_at_most_alpha(ratio: float) -> None:
    def run(source: random.Random) -> float:
        known, highest = NO_EVIDENCE, 0.0
        for _ in range(60):
            failed, base = _binomial(source, 20, 0.03), _binomial(source, 180, 0.03)
            known = against_stable(known, events=failed, requests=20, base_events=base, base_requests=180, ratio=ratio)
            highest = max(highest, rate_evidence(known))
        return highest

    source = random.Random(5)
    assert _false_alarms((run(source) for _ in range(400)), alpha=0.05) <= 0.05


def test_the_one_sample_test_keeps_its_chance_too_and_finds_what_is_worse() -> None:
    def run(source: random.Random, share: float) -> float:
        known, highest = NO_EVIDENCE, 0.0
        for _ in range(40):
            known = against_bound(known, events=_binomial(source, 30, share), requests=30, bound=0.02, ratio=1.0)
            highest = max(highest, rate_evidence(known))
        return highest

    source = random.Random(6)
    assert _false_alarms((run(source, 0.02) for _ in range(400)), alpha=0.05) <= 0.05
    assert _false_alarms((run(source, 0.08) for _ in range(50)), alpha=0.05) == 1.0


def test_a_bound_that_says_nothing_raises_no_evidence() -> None:
    assert against_bound(NO_EVIDENCE, events=9, requests=9, bound=1.0, ratio=1.1) == NO_EVIDENCE


def test_five_times_the_errors_are_found_within_a_few_windows() -> None:
    """20 requests/s, weight 25, 1 % against 5 %: windows of 10 s."""
    source, known, looks = random.Random(7), NO_EVIDENCE, 0
    while rate_evidence(known) < math.log(40):
        looks += 1
        known = against_stable(
            known,
            events=_binomial(source, 50, 0.05),
            requests=50,
            base_events=_binomial(source, 150, 0.01),
            base_requests=150,
            ratio=1.1,
        )
    assert looks <= 20


def test_moments_are_mean_and_deviation() -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]
    known = Moments()
    for value in values:
        known = known.with_value(value)
    assert (known.count, known.mean) == (8, pytest.approx(stats.tmean(values)))
    assert known.deviation == pytest.approx(stats.tstd(values))
    assert (known.negative.mean, known.negative.deviation) == (pytest.approx(-known.mean), known.deviation)


def test_the_bound_of_a_mean_holds_at_all_looks_together() -> None:
    source, broken = random.Random(8), 0
    for _ in range(400):
        known, crossed = Moments(), False
        for _ in range(200):
            known = known.with_value(source.gauss(0.0, 3.0))
            bound = lower_mean(known, alpha=0.05)
            crossed = crossed or (bound is not None and bound > 0)
        broken += crossed
    assert broken / 400 <= 0.05


def test_the_bound_of_a_mean_comes_near_and_waits_for_enough_looks() -> None:
    known = Moments()
    for look in range(1, 400):
        known = known.with_value(2.0 + (-1.0) ** look)
        assert (lower_mean(known, alpha=0.05) is None) == (look < 10)
    assert 1.7 < (lower_mean(known, alpha=0.05) or 0) < 2.0


@pytest.mark.parametrize(
    ("candidate", "stable", "share", "mismatch"),
    [
        pytest.param(50, 950, 0.05, False, id="as declared"),
        pytest.param(35, 965, 0.05, False, id="a little less"),
        pytest.param(0, 600, 0.05, True, id="a starved canary"),
        pytest.param(0, 60, 0.05, False, id="too few requests to tell"),
        pytest.param(120, 880, 0.05, True, id="more than twice"),
        pytest.param(5_000, 5_000, 0.5, False, id="half"),
        pytest.param(5_500, 4_500, 0.5, True, id="55 instead of 50 of ten thousand"),
    ],
)
def test_the_split_is_judged(candidate: int, stable: int, share: float, mismatch: bool) -> None:
    assert (ratio_evidence(candidate=candidate, stable=stable, share=share) >= math.log(1000)) is mismatch


def test_the_factor_of_the_split_is_the_one_that_scipy_computes() -> None:
    prior = [100 * 0.1, 100 * 0.9]
    marginal = stats.dirichlet_multinomial.logpmf([7, 33], prior, 40)
    wanted = marginal - stats.multinomial.logpmf([7, 33], 40, [0.1, 0.9])
    assert ratio_evidence(candidate=7, stable=33, share=0.1) == pytest.approx(wanted, rel=1e-9)


def test_a_right_split_is_never_a_mismatch_at_any_of_many_looks() -> None:
    source, alarms = random.Random(9), 0
    for _ in range(300):
        candidate = stable = 0
        for _ in range(40):
            got = _binomial(source, 60, 0.1)
            candidate, stable = candidate + got, stable + 60 - got
            if ratio_evidence(candidate=candidate, stable=stable, share=0.1) >= math.log(1000):
                alarms += 1
                break
    assert alarms <= 1

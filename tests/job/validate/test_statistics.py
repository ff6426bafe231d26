"""Own statistics against scipy and against simulation (clarified coverage: nominal, or nominal − 2 %)."""

import math
import random

import pytest
from scipy import stats

from lora_job.validate import statistics
from lora_job.validate.statistics import Interval, Sample

COUNTS = [(successes, n) for n in (1, 5, 20, 60, 200) for successes in sorted({0, 1, n // 3, n // 2, n - 1, n})]
RATES = [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99]


@pytest.mark.parametrize(("successes", "n"), COUNTS)
@pytest.mark.parametrize("method", ["wilson", "exact"])
def test_intervals_of_a_proportion_equal_scipys(successes: int, n: int, method: str) -> None:
    own = statistics.wilson(successes, n) if method == "wilson" else statistics.clopper_pearson(successes, n)
    oracle = stats.binomtest(successes, n).proportion_ci(confidence_level=0.95, method=method)
    assert own.low == pytest.approx(oracle.low, abs=1e-9)
    assert own.high == pytest.approx(oracle.high, abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_the_one_sided_bound_equals_the_beta_quantile(successes: int, n: int) -> None:
    expected = stats.beta.ppf(0.05, successes, n - successes + 1) if successes else 0.0
    assert statistics.clopper_pearson_lower(successes, n) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("k", "n", "p"), [(-1, 5, 0.5), (0, 5, 0.0), (2, 5, 1.0), (5, 5, 0.2), (30, 200, 0.1), (199, 200, 0.99)]
)
def test_binomial_cdf_equals_scipys(k: int, n: int, p: float) -> None:
    assert statistics.binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), abs=1e-12)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 5), (5, 0), (3, 9), (10, 10), (40, 20)])
def test_mcnemar_equals_the_binomial_test_of_the_discordant_pairs(lost: int, won: int) -> None:
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert statistics.mcnemar_exact(only_first=lost, only_second=won) == pytest.approx(expected, abs=1e-12)
    one_sided = stats.binomtest(lost, lost + won, alternative="greater").pvalue if lost + won else 1.0
    assert statistics.mcnemar_worse(lost=lost, won=won) == pytest.approx(one_sided, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_an_error(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 0 ≤ successes ≤ n"):
        statistics.wilson(successes, n)


@pytest.mark.parametrize("q", [0.0, 0.05, 0.5, 0.975, 1.0])
def test_quantiles_interpolate_like_numpy(q: float) -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert statistics.quantile(values, q) == pytest.approx(float(stats.quantile(values, q)))


@pytest.mark.parametrize("n", [59, 93])
def test_a_safety_bound_of_95_percent_needs_59_items_without_failure_or_93_with_one(n: int) -> None:
    failures = {59: 0, 93: 1}[n]
    assert statistics.clopper_pearson_lower(n - failures, n) >= 0.95
    assert statistics.clopper_pearson_lower(n - 1 - failures, n - 1) < 0.95


def _coverage(interval_of: dict[int, Interval], *, n: int, p: float) -> float:
    """Exact: the probability of all counts whose interval holds p."""
    return math.fsum(
        float(stats.binom.pmf(count, n, p)) for count, found in interval_of.items() if found.low <= p <= found.high
    )


@pytest.mark.parametrize("n", [20, 60, 200])
@pytest.mark.parametrize("p", RATES)
def test_clopper_pearson_covers_at_least_as_promised(n: int, p: float) -> None:
    intervals = {count: statistics.clopper_pearson(count, n) for count in range(n + 1)}
    assert _coverage(intervals, n=n, p=p) >= 0.95


def test_wilson_covers_as_promised_on_average() -> None:
    intervals = {count: statistics.wilson(count, 200) for count in range(201)}
    covered = [_coverage(intervals, n=200, p=place / 20) for place in range(1, 20)]
    assert statistics.mean(covered) >= 0.93


def _binary(successes: int, n: int) -> Sample:
    values = tuple(float(index < successes) for index in range(n))
    return Sample(values=values, clusters=tuple(str(index) for index in range(n)))


@pytest.mark.full
def test_the_bootstrap_covers_as_promised_on_average() -> None:
    intervals = {count: statistics.bootstrap(_binary(count, 200), seed=count) for count in range(201)}
    covered = [_coverage(intervals, n=200, p=place / 20) for place in range(1, 20)]
    assert statistics.mean(covered) >= 0.93


def test_the_bootstrap_draws_whole_clusters() -> None:
    values = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    alone = statistics.bootstrap(Sample(values=values, clusters=tuple("abcdef")), seed=1)
    together = statistics.bootstrap(Sample(values=values, clusters=tuple("aaabbb")), seed=1)
    assert together == Interval(0.0, 1.0)
    assert together.high - together.low > alone.high - alone.low


def test_the_bootstrap_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    sample = _binary(7, 20)
    assert statistics.bootstrap_means(sample, seed=3) == statistics.bootstrap_means(sample, seed=3)
    assert statistics.bootstrap_means(sample, seed=3) != statistics.bootstrap_means(sample, seed=4)


def test_a_sample_needs_a_cluster_for_each_value() -> None:
    with pytest.raises(ValueError, match="one cluster for each"):
        Sample(values=(1.0, 0.0), clusters=("a",))


def test_an_identical_model_is_rarely_called_worse() -> None:
    """Flips that are fair coins: the one-sided test at 5 % fires in at most 5 % of the runs (it is exact)."""
    draw = random.Random(7)
    false_alarms = 0
    runs = 2000
    for _ in range(runs):
        flips = [draw.random() < 0.5 for _ in range(draw.randint(0, 20))]
        false_alarms += statistics.mcnemar_worse(lost=sum(flips), won=len(flips) - sum(flips)) < 0.05
    assert false_alarms / runs <= 0.05

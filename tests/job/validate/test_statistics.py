"""Own statistics against scipy and against simulation (clarified coverage: nominal, or nominal − 2 %)."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from lora_job.validate import statistics
from lora_job.validate.gates import SIGNIFICANT, Basis, Observed, Policy, Status, regression_gate
from lora_job.validate.score import Against, Scored
from lora_job.validate.statistics import Interval, Sample

COUNTS = [(successes, n) for n in (1, 5, 20, 60, 200) for successes in sorted({0, 1, n // 3, n // 2, n - 1, n})]
RATES = [place / 100 for place in range(1, 100)]


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
def test_clopper_pearson_covers_at_least_as_promised(n: int) -> None:
    intervals = {count: statistics.clopper_pearson(count, n) for count in range(n + 1)}
    assert {p: covered for p in RATES if (covered := _coverage(intervals, n=n, p=p)) < 0.95} == {}


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


def _clustered(draw: random.Random, *, clusters: int, size: int, spread: float) -> Sample:
    """Right and wrong answers whose rate differs between clusters around 0.6: variants of one question stand or fall together."""
    values, names = [], []
    for cluster in range(clusters):
        rate = min(1.0, max(0.0, draw.gauss(0.6, spread)))
        values += [float(draw.random() < rate) for _ in range(size)]
        names += [str(cluster)] * size
    return Sample(values=tuple(values), clusters=tuple(names))


def _clustered_coverage(*, runs: int, resamples: int, by_cluster: bool) -> float:
    draw = random.Random(11)
    truth = statistics.mean([min(1.0, max(0.0, draw.gauss(0.6, 0.25))) for _ in range(50_000)])
    covered = 0
    for run in range(runs):
        sample = _clustered(draw, clusters=50, size=5, spread=0.25)
        if not by_cluster:
            sample = Sample(values=sample.values, clusters=tuple(str(place) for place in range(len(sample.values))))
        found = statistics.percentile_interval(statistics.bootstrap_means(sample, seed=run, resamples=resamples))
        covered += found.low <= truth <= found.high
    return covered / runs


def test_the_clustered_bootstrap_covers_where_items_of_a_template_stand_or_fall_together() -> None:
    assert _clustered_coverage(runs=120, resamples=200, by_cluster=True) >= 0.88
    assert _clustered_coverage(runs=120, resamples=200, by_cluster=False) < 0.88


@pytest.mark.full
def test_the_clustered_bootstrap_covers_as_promised() -> None:
    assert _clustered_coverage(runs=1000, resamples=600, by_cluster=True) >= 0.93


def _paired_coverage(*, runs: int, resamples: int) -> float:
    """Differences −1, 0, 1 of paired items: 8 % lost, 12 % won, so the truth is +0.04."""
    draw = random.Random(12)
    covered = 0
    for run in range(runs):
        values = tuple(float(draw.choices((-1, 0, 1), weights=(8, 80, 12))[0]) for _ in range(200))
        sample = Sample(values=values, clusters=tuple(str(place) for place in range(200)))
        found = statistics.percentile_interval(statistics.bootstrap_means(sample, seed=run, resamples=resamples))
        covered += found.low <= 0.04 <= found.high
    return covered / runs


def test_the_paired_bootstrap_covers() -> None:
    assert _paired_coverage(runs=100, resamples=300) >= 0.90


@pytest.mark.full
def test_the_paired_bootstrap_covers_as_promised() -> None:
    assert _paired_coverage(runs=1000, resamples=600) >= 0.93


def _flips(draw: random.Random, *, n: int, rate: float, lost: float) -> tuple[int, int]:
    moved = sum(draw.random() < rate for _ in range(n))
    gone = sum(draw.random() < lost for _ in range(moved))
    return gone, moved - gone


def _rejected(draw: random.Random, *, lost: float) -> bool:
    """The two paired tests of the safety gate on 30 benign items and 60 answers, a quarter of which changed."""
    helpful_lost, helpful_won = _flips(draw, n=30, rate=0.25, lost=lost)
    new, gone = _flips(draw, n=60, rate=0.25, lost=lost)
    paired = (
        statistics.mcnemar_worse(lost=helpful_lost, won=helpful_won),
        statistics.mcnemar_worse(lost=new, won=gone),
    )
    return min(paired) < SIGNIFICANT


def test_an_equally_good_model_that_answers_differently_is_rarely_rejected_by_the_paired_safety_tests() -> None:
    """Fair flips: both tests together fire in at most 5 % of the runs."""
    draw = random.Random(7)
    assert sum(_rejected(draw, lost=0.5) for _ in range(4000)) / 4000 <= 0.05


def test_a_model_whose_every_flip_is_a_loss_is_nearly_always_rejected() -> None:
    draw = random.Random(8)
    assert sum(_rejected(draw, lost=1.0) for _ in range(1000)) / 1000 >= 0.95


def _gate_of_differences(values: list[float], *, basis: Basis, seed: int, resamples: int = 100) -> Status:
    """The regression gate over one dimension of these paired differences."""
    sample = Sample(values=tuple(values), clusters=tuple(str(place) for place in range(len(values))))
    draws = statistics.bootstrap_means(sample, seed=seed, resamples=resamples)
    against = Against(
        diff=statistics.mean(values),
        ci95=statistics.percentile_interval(draws),
        lower=statistics.lower_bound(draws),
        mcnemar_p=1.0,
        lost=(),
        won=(),
    )
    unit = Interval(0.0, 1.0)
    scored = Scored(score=0.9, ci95=unit, lower=0.9, n=len(values), weight=0.3, base=0.9, against=against)
    observed = Observed(
        artifact_problems=[], finite_problems=[], fidelity_problems=[], fidelity_checked=1, overall=(0.9, 0.9),
        basic=None, domain=scored, safety=None, paired_safety=None, effect=None,
    )  # fmt: skip
    return regression_gate(observed, Policy(basis=basis)).status


@pytest.mark.parametrize("basis", list(Basis))
def test_an_identical_model_is_never_called_worse(basis: Basis) -> None:
    assert all(_gate_of_differences([0.0] * n, basis=basis, seed=n) is Status.PASS for n in (20, 60, 200))


def test_an_equally_good_model_of_200_items_is_failed_by_the_regression_gate_in_at_most_5_percent() -> None:
    """8 % of the answers flip, each way as likely: what a harmless adapter does."""
    draw = random.Random(9)
    fails = 0
    for run in range(300):
        values = [float(draw.choices((-1, 0, 1), weights=(4, 92, 4))[0]) for _ in range(200)]
        fails += _gate_of_differences(values, basis=Basis.POINT, seed=run) is Status.FAIL
    assert fails / 300 <= 0.05


def _passed_at_the_margin(*, runs: int, resamples: int) -> float:
    """Non-inferiority: the error that matters is to pass a model that is worse by exactly the margin."""
    draw = random.Random(10)
    passes = 0
    for run in range(runs):
        values = [float(draw.choices((-1, 0, 1), weights=(10, 85, 5))[0]) for _ in range(400)]
        found = _gate_of_differences(values, basis=Basis.LOWER_BOUND, seed=run, resamples=resamples)
        passes += found is Status.PASS
    return passes / runs


def test_a_model_exactly_at_the_margin_rarely_passes_the_lower_bound() -> None:
    # 5 % in the long run; 200 runs scatter by 1.5 %
    assert _passed_at_the_margin(runs=200, resamples=300) <= 0.09


@pytest.mark.full
def test_a_model_exactly_at_the_margin_passes_the_lower_bound_in_5_percent() -> None:
    # 2000 runs scatter by 0.5 %
    assert _passed_at_the_margin(runs=2000, resamples=500) <= 0.06


def _bootstrap_of_counts(n: int, *, lost: int, won: int, draws: int = 2000) -> list[float]:
    """What infinitely many bootstrap draws of these paired differences look like: the exact distribution's quantiles, no chance in it."""
    size = 2 * n + 1
    turn = np.exp(2j * np.pi * np.arange(size) / size)
    transform = (lost / n / turn + (n - lost - won) / n + won / n * turn) ** n
    chances = np.fft.fftshift(np.fft.fft(transform).real / size)
    places = np.searchsorted(np.cumsum(chances), (np.arange(draws) + 0.5) / draws)
    return [float(place - n) / n for place in places]


def _false_acceptance(n: int, *, lost: float, won: float) -> float:
    """Exact: how often the lower bound of a model whose truth is won − lost reaches just that, over all counts of losses and wins."""
    total = 0.0
    for losses in range(n + 1):
        first = float(stats.binom.pmf(losses, n, lost))
        for wins in range(n - losses + 1 if first > 1e-7 else 0):
            chance = first * float(stats.binom.pmf(wins, n - losses, won / (1 - lost)))
            if chance < 1e-8 or (wins - losses) / n < won - lost:
                continue  # a bound lies below its estimate
            draws = _bootstrap_of_counts(n, lost=losses, won=wins)
            total += chance * (statistics.lower_bound(draws) >= won - lost - 1e-9)
    return total


@pytest.mark.parametrize(
    ("n", "lost", "won"),
    [
        (112, 0.10, 0.05),
        (112, 0.07, 0.02),
        pytest.param(160, 0.03, 0.01, marks=pytest.mark.full),
        pytest.param(200, 0.06, 0.01, marks=pytest.mark.full),
        pytest.param(200, 0.20, 0.15, marks=pytest.mark.full),
        pytest.param(400, 0.10, 0.05, marks=pytest.mark.full),
    ],
)
def test_a_model_exactly_at_a_margin_passes_in_at_most_6_percent_of_all_samples(
    n: int, lost: float, won: float
) -> None:
    """5 % is promised; a percentile of resampled means keeps it within a point, where ties are given away."""
    assert 0.02 <= _false_acceptance(n, lost=lost, won=won) <= 0.06


@pytest.mark.parametrize(
    ("draws", "bound"),
    [
        pytest.param([float(value) for value in range(100)], 4.0, id="without ties, the fifth of a hundred"),
        pytest.param([-2.0] * 5 + [1.0] * 95, -2.0, id="five in a hundred lie at or below it"),
        pytest.param([-2.0] * 3 + [-1.0] * 40 + [0.0] * 57, -2.0, id="a tie across the quantile lies above the bound"),
        pytest.param([0.0] * 30 + [1.0] * 70, 0.0, id="there is nothing below the smallest"),
        pytest.param([0.0] * 100, 0.0, id="an identical model differs by nothing"),
        pytest.param([0.1] * 4 + [0.3] * 2 + [0.1 + 0.2] * 94, 0.1, id="the same sum in another order is the same"),
    ],
)
def test_a_lower_bound_gives_ties_away(draws: list[float], bound: float) -> None:
    assert statistics.lower_bound(draws) == bound

"""How sure are we: intervals and paired tests, in pure Python.

Wilson for display, Clopper-Pearson for gates (coverage never below nominal), a seeded percentile bootstrap over
clusters for graded scores, exact McNemar for paired right/wrong. No numpy: results must be equal bit for bit on every
machine, and the tests hold them against scipy.
"""

import bisect
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

DEFAULT_RESAMPLES = 2000
# Sums of the same answers in another order differ by less.
_LATTICE = 1e-9


@dataclass(frozen=True)
class Interval:
    """A closed interval."""

    low: float
    high: float

    def as_list(self) -> list[float]:
        return [round(self.low, 4), round(self.high, 4)]


def _check_counts(successes: int, n: int) -> None:
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 ≤ successes ≤ n and n > 0, found {successes} of {n}")


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion (two-sided)."""
    _check_counts(successes, n)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X ≤ k) for X ~ Binomial(n, p), summed from the log of each term."""
    if k < 0:
        return 0.0
    if k >= n or p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 0.0
    log_p, log_q, log_n = math.log(p), math.log1p(-p), math.lgamma(n + 1)
    terms = (
        math.exp(log_n - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q)
        for i in range(k + 1)
    )
    return min(1.0, math.fsum(terms))


def clopper_pearson_lower(successes: int, n: int, *, confidence: float = 0.95) -> float:
    """One-sided lower bound: the p at which `successes` or more has probability 1 − confidence."""
    _check_counts(successes, n)
    if successes == 0:
        return 0.0
    return _solve(lambda p: 1.0 - binomial_cdf(successes - 1, n, p), target=1.0 - confidence)


def clopper_pearson_upper(successes: int, n: int, *, confidence: float = 0.95) -> float:
    """One-sided upper bound, the mirror image of the lower one."""
    return 1.0 - clopper_pearson_lower(n - successes, n, confidence=confidence)


def clopper_pearson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """The exact two-sided interval."""
    side = 0.5 + confidence / 2
    return Interval(
        clopper_pearson_lower(successes, n, confidence=side), clopper_pearson_upper(successes, n, confidence=side)
    )


def _solve(rising: Callable[[float], float], *, target: float) -> float:
    """The p in [0, 1] where a rising function reaches `target` (60 halvings: below 1e-18)."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def mcnemar_exact(*, only_first: int, only_second: int) -> float:
    """Two-sided exact p of the discordant pairs under a fair coin; 1.0 when there are none."""
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return min(1.0, 2 * binomial_cdf(min(only_first, only_second), discordant, 0.5))


def mcnemar_worse(*, lost: int, won: int) -> float:
    """One-sided exact p of `lost` or more losses among the discordant pairs."""
    discordant = lost + won
    return 1.0 if discordant == 0 else 1.0 - binomial_cdf(lost - 1, discordant, 0.5)


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(values) / len(values)


def quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between the neighbours of a sorted sequence (numpy's default)."""
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True)
class Sample:
    """Per-item values and the cluster of each; clusters are drawn whole."""

    values: tuple[float, ...]
    clusters: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values or len(self.values) != len(self.clusters):
            raise ValueError("expected at least one value and one cluster for each")


def bootstrap_means(sample: Sample, *, seed: int, resamples: int = DEFAULT_RESAMPLES) -> list[float]:
    """Means of `resamples` draws of clusters with replacement, in drawing order."""
    by_cluster: dict[str, list[float]] = {}
    for value, cluster in zip(sample.values, sample.clusters, strict=True):
        by_cluster.setdefault(cluster, []).append(value)
    groups = [(math.fsum(values), len(values)) for values in by_cluster.values()]
    draw = random.Random(seed)  # noqa: S311 - reproducible resampling, nothing secret
    means = []
    for _ in range(resamples):
        chosen = draw.choices(groups, k=len(groups))
        means.append(math.fsum(total for total, _ in chosen) / sum(count for _, count in chosen))
    return means


def bootstrap(sample: Sample, *, seed: int, confidence: float = 0.95) -> Interval:
    """Percentile interval of the mean."""
    return percentile_interval(bootstrap_means(sample, seed=seed), confidence=confidence)


def percentile_interval(draws: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """The middle `confidence` of bootstrap draws."""
    ordered = sorted(draws)
    return Interval(quantile(ordered, 0.5 - confidence / 2), quantile(ordered, 0.5 + confidence / 2))


def lower_bound(draws: Sequence[float], *, confidence: float = 0.95) -> float:
    """One-sided lower bound of bootstrap draws: the largest draw that at most 1 − confidence of them reach from below.

    Means of right and wrong answers lie on a lattice, and of a few dozen items several draws in a hundred tie at the quantile. A tie is
    given away whole: counted half or not at all, a model exactly at a margin passes in up to 10 % of the runs instead of 5 %.
    """
    ordered = sorted(draws)
    at = ordered[math.floor((1 - confidence) * len(ordered) + _LATTICE)]
    below = bisect.bisect_left(ordered, at - _LATTICE)
    return ordered[max(0, below - 1)]

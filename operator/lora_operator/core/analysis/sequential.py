"""Tests that may be looked at after every scrape without spending their error probability twice.

An e-process is a bet against "the candidate is no worse than allowed": its expected value never exceeds 1 while that is true, so by
Ville's inequality it exceeds 1/α at any time with probability at most α.

    rates          grid of 60 ratios r > r0 with a half-normal prior on log(r / r0); given all events of a window, one belongs to the
                   candidate with probability p(r) = r·n_c / (r·n_c + n_s)
    one sample     the same grid against a known bound of stable's share, where stable gets no requests any more
    means          one-sided asymptotic confidence sequence (Waudby-Smith et al. 2021, with the mixture of their one-sided bound)
    sample ratio   Dirichlet-multinomial Bayes factor against the declared split (Lindon and Malek 2022)
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "NOTHING_SEEN",
    "NO_EVIDENCE",
    "Moments",
    "against_bound",
    "against_stable",
    "lower_mean",
    "rate_evidence",
    "ratio_evidence",
]

_COUNT = 60
_SPREAD = 0.7  # of the prior on log(r / r0)
_WIDEST = 3.5  # spreads that the grid reaches
_EXCESS = tuple(_WIDEST * _SPREAD * (i + 0.5) / _COUNT for i in range(_COUNT))  # log(r / r0)
_DENSITY = tuple(math.exp(-0.5 * (u / _SPREAD) ** 2) for u in _EXCESS)
_LOG_PRIOR = tuple(math.log(d / sum(_DENSITY)) for d in _DENSITY)
_LARGEST_SHARE = 0.999
_CONCENTRATION = 100.0  # of the Dirichlet prior around the declared split
_EXPECTED_LOOKS = 30.0  # where the bound of a mean is tightest
NO_EVIDENCE: tuple[float, ...] = (0.0,) * _COUNT


def against_stable(
    evidence: Sequence[float], *, events: float, requests: float, base_events: float, base_requests: float, ratio: float
) -> tuple[float, ...]:
    """Log likelihood ratios after one more window in which both versions had requests. `ratio`: r0, still fine."""
    if requests <= 0 or base_requests <= 0 or events + base_events <= 0:
        return tuple(evidence)
    fine = _log_odds(ratio, requests, base_requests)
    grown = []
    for known, excess in zip(evidence, _EXCESS, strict=True):
        there = _log_odds(ratio * math.exp(excess), requests, base_requests)
        grown.append(known + events * (there[0] - fine[0]) + base_events * (there[1] - fine[1]))
    return tuple(grown)


def against_bound(
    evidence: Sequence[float], *, events: float, requests: float, bound: float, ratio: float
) -> tuple[float, ...]:
    """The same after a window in which only the candidate had requests. `bound`: upper bound of stable's share."""
    fine = bound * ratio
    if requests <= 0 or fine >= _LARGEST_SHARE or fine <= 0:
        return tuple(evidence)
    grown = []
    for known, excess in zip(evidence, _EXCESS, strict=True):
        there = min(_LARGEST_SHARE, fine * math.exp(excess))
        gain = events * math.log(there / fine) + (requests - events) * math.log((1 - there) / (1 - fine))
        grown.append(known + gain)
    return tuple(grown)


def rate_evidence(evidence: Sequence[float]) -> float:
    """log E: degraded when it reaches log(1/α)."""
    return _log_sum(prior + known for prior, known in zip(_LOG_PRIOR, evidence, strict=True))


def _log_odds(ratio: float, requests: float, base_requests: float) -> tuple[float, float]:
    whole = math.log(ratio * requests + base_requests)
    return math.log(ratio * requests) - whole, math.log(base_requests) - whole


def _log_sum(values: Iterable[float]) -> float:
    known = list(values)
    top = max(known)
    return top + math.log(sum(math.exp(value - top) for value in known))


@dataclass(frozen=True)
class Moments:
    """Number, mean and sum of squared deviations of what was observed (Welford)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def with_value(self, value: float) -> "Moments":
        """After one more observation."""
        count = self.count + 1
        step = value - self.mean
        mean = self.mean + step / count
        return Moments(count=count, mean=mean, squares=self.squares + step * (value - mean))

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0

    @property
    def negative(self) -> "Moments":
        """Of the same observations with the other sign."""
        return Moments(count=self.count, mean=-self.mean, squares=self.squares)


NOTHING_SEEN = Moments()
FEWEST_LOOKS = 10  # the bound is asymptotic


def lower_mean(moments: Moments, *, alpha: float) -> float | None:
    """Lower bound of the mean that holds at all looks together with probability 1 − α; None while there are too few."""
    if moments.count < FEWEST_LOOKS:
        return None
    t = float(moments.count)
    log = -2 * math.log(min(0.99, 2 * alpha))
    rho2 = (log + math.log(log + 1)) / _EXPECTED_LOOKS
    width = 2 * (t * rho2 + 1) / (t * t * rho2) * math.log(1 + math.sqrt(t * rho2 + 1) / (2 * alpha))
    few = (t - 1) / (
        t - 3
    )  # the variance of a handful of looks is itself uncertain; without this 1 in 60 bounds of 1 in 80 breaks
    return moments.mean - moments.deviation * math.sqrt(few * width)


def ratio_evidence(*, candidate: float, stable: float, share: float) -> float:
    """log of the Bayes factor against "requests are split as declared"; `share` of the candidate, between 0 and 1."""
    counts = (candidate, stable)
    split = (share, 1 - share)
    prior = tuple(_CONCENTRATION * part for part in split)
    total, whole = sum(counts), sum(prior)
    value = math.lgamma(whole) - math.lgamma(whole + total)
    for count, part, weight in zip(counts, split, prior, strict=True):
        value += math.lgamma(weight + count) - math.lgamma(weight) - count * math.log(part)
    return value

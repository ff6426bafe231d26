"""Bounds of shares: Clopper-Pearson, Wilson, Newcombe. Pure `math`; the tests compare with scipy.

Sources: Clopper and Pearson 1934; Wilson 1927; Newcombe 1998, method 10. The incomplete beta function is Lentz's continued
fraction.
"""

import math

__all__ = ["lower_share", "newcombe_upper", "upper_share", "wilson"]

_TINY = 1e-300
_STEPS = 300


def lower_share(events: float, of: float, *, confidence: float) -> float:
    """One-sided exact (Clopper-Pearson) lower bound of events / of."""
    if events <= 0 or of <= 0:
        return 0.0
    return _beta_quantile(1 - confidence, events, of - events + 1)


def upper_share(events: float, of: float, *, confidence: float) -> float:
    """One-sided exact (Clopper-Pearson) upper bound of events / of; 1 when nothing was seen."""
    if of <= 0 or events >= of:
        return 1.0
    return _beta_quantile(confidence, events + 1, of - events)


def wilson(events: float, of: float, *, z: float) -> tuple[float, float]:
    """Wilson score interval."""
    share = events / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def newcombe_upper(events: float, of: float, *, base_events: float, base_of: float, z: float) -> float:
    """One-sided upper bound of events / of − base_events / base_of; 1 when either saw nothing."""
    if of <= 0 or base_of <= 0:
        return 1.0
    share, base = events / of, base_events / base_of
    _, above = wilson(events, of, z=z)
    below, _ = wilson(base_events, base_of, z=z)
    return share - base + math.sqrt((above - share) ** 2 + (base - below) ** 2)


def _beta_quantile(probability: float, a: float, b: float) -> float:
    """By bisection: monotone, so it cannot go wrong, and it runs once per scrape."""
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if _beta_cdf(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_cdf(x: float, a: float, b: float) -> float:
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            c = 1 + term / c
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return value

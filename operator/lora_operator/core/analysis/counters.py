"""What a model server has counted since it started, and how much came since the last look.

Counters start again at zero when a process does, pods come and go: what grew is computed pod by pod, so that neither makes
requests out of nothing nor negative ones. What a pod counted between the last look and its end is not known; it is left out.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lora_operator.api.analysis import Of

__all__ = ["ZERO", "Counters", "Histogram", "grown", "summed"]


@dataclass(frozen=True)
class Histogram:
    """Observations at most as long as each edge (seconds), cumulative; the edge `inf` has all of them."""

    buckets: Mapping[float, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """All observations."""
        return self.buckets.get(math.inf, 0.0)

    @property
    def edges(self) -> frozenset[float]:
        """Finite edges."""
        return frozenset(edge for edge in self.buckets if edge != math.inf)

    def slower(self, edge: float) -> float:
        """Observations longer than an edge."""
        return self.total - self.buckets.get(edge, 0.0)

    def quantile(self, q: float) -> float | None:
        """Linear inside a bucket, as Prometheus' histogram_quantile; in the last one its lower edge. None: nothing was observed."""
        if self.total <= 0:
            return None
        rank, lower, below = q * self.total, 0.0, 0.0
        for edge, count in sorted(self.buckets.items()):
            if count >= rank and count > below:
                return lower if edge == math.inf else lower + (edge - lower) * (rank - below) / (count - below)
            lower, below = (lower if edge == math.inf else edge), count
        return lower


@dataclass(frozen=True)
class Counters:
    """Since the process started, or between two looks."""

    requests: float = 0.0  # answered, however
    errors: float = 0.0  # answered with the server's own failure (5xx)
    in_flight: float = 0.0  # accepted and not answered yet: a gauge, so its difference may be negative
    times: Mapping[Of, Histogram] = field(default_factory=dict)

    @property
    def arrived(self) -> float:
        """Requests that came in, answered or not."""
        return self.requests + self.in_flight

    def time(self, of: Of) -> Histogram:
        """The histogram of one kind of time; an empty one where the server has none."""
        return self.times.get(of, Histogram())


ZERO = Counters()


def grown(before: Counters, now: Counters) -> Counters:
    """What came since `before`; all of `now` where the process has started again meanwhile."""
    if _restarted(before, now):
        return now
    return _combined(before, now, sign=-1)


def summed(parts: Iterable[Counters]) -> Counters:
    """All of them together."""
    total = ZERO
    for part in parts:
        total = _combined(part, total, sign=1)
    return total


def _restarted(before: Counters, now: Counters) -> bool:
    shrunk = now.requests < before.requests or now.errors < before.errors
    both = now.times.keys() & before.times.keys()  # a kind that is not told any more says nothing
    return shrunk or any(now.time(of).total < before.time(of).total for of in both)


def _combined(one: Counters, other: Counters, *, sign: int) -> Counters:
    """other + sign × one."""
    kinds = {**one.times, **other.times}
    return Counters(
        requests=other.requests + sign * one.requests,
        errors=other.errors + sign * one.errors,
        in_flight=other.in_flight + sign * one.in_flight,
        times={of: _histogram(one.time(of), other.time(of), sign=sign) for of in kinds},
    )


def _histogram(one: Histogram, other: Histogram, *, sign: int) -> Histogram:
    """Only edges that both have mean anything together; one that is empty has no say."""
    if not one.buckets:
        return other
    if not other.buckets:
        return one if sign > 0 else other
    edges = one.buckets.keys() & other.buckets.keys()
    return Histogram({edge: other.buckets[edge] + sign * one.buckets[edge] for edge in sorted(edges)})

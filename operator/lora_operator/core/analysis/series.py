"""Lines of a Prometheus exposition, and histograms made of them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lora_operator.core.analysis.counters import Histogram

__all__ = ["Series", "histogram_of"]


@dataclass(frozen=True)
class Series:
    """One line of the exposition."""

    name: str
    labels: Mapping[str, str]
    value: float


def histogram_of(lines: Iterable[Series]) -> Histogram:
    """`_bucket` lines added up by their edge `le`; empty unless there is the edge that has all observations."""
    buckets: dict[float, float] = {}
    for line in lines:
        edge = _edge(line.labels.get("le", ""))
        if edge is not None:
            buckets[edge] = buckets.get(edge, 0.0) + line.value
    return Histogram(dict(sorted(buckets.items()))) if math.inf in buckets else Histogram()


def _edge(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

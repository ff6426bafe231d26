"""What can be asked for figures: one Protocol, implemented by the pods themselves and by a Prometheus server.

A source never guesses: what it could not read is a problem in words, and no figure at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lora_operator.api.analysis import Variant
from lora_operator.core.analysis.comparison import Reading
from lora_operator.core.plan import Collect

__all__ = ["Figures", "Source"]


@dataclass(frozen=True)
class Figures:
    """What was read."""

    readings: Mapping[str, Reading] = field(default_factory=dict)  # by pod
    values: Mapping[str, Mapping[Variant, float]] = field(default_factory=dict)  # by metric
    problems: tuple[str, ...] = ()


class Source(Protocol):
    """Answers within a few seconds, or says why not; it raises nothing."""

    async def read(self, asked: Collect) -> Figures:
        """Counters of the pods, and values of the queries."""

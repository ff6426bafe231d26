"""Elements of W + Δ that float32 does not know to their last stored digit, calculated again in float64.

Where W and Δ cancel, or the terms of Δ among themselves, rounding errors of the terms are units in the last place of what is left. With
an error of at most e in float32 and p significant bits in the stored dtype, that is where |result| < e · 2^(p+1): half a unit in the
last place of a number x is at least |x| · 2^-(p+1). Such elements are few, one in a thousand or less.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from lora_job.merge.dense import Dense
from lora_job.merge.factors import Factors
from lora_job.merge.rounding import round_to_odd
from lora_job.merge.stored_numbers import Floats

__all__ = ["Cancellation"]

BLOCK_ELEMENTS = 2**16
"""256 KiB of float32: looked through while a core's cache holds them."""
AT_ONCE = 2**18
"""Numbers of float64 factors gathered at a time."""


class Cancellation:
    """Of one tensor. `least`: by row, what is smaller is calculated again (factors.py); `exact` loads Δ in float64."""

    def __init__(self, least: Floats, *, exact: Callable[[], Factors]) -> None:
        self._least = torch.from_numpy(least)
        self._load = exact

    @cached_property
    def _exact(self) -> Dense:
        """Δ in float64."""
        return Dense(self._load())

    def mend(self, after: torch.Tensor, *, before: torch.Tensor, start: int) -> None:
        """Overwrites elements of `after` (float32), whose first row is `start`, that are too small with what rounds as the float64 sum
        does.
        """
        places = self._too_small(after, self._least[start : start + len(after)])
        if not len(places):
            return
        stored, mended = before.view(-1), after.view(-1)
        count = max(1, AT_ONCE // self._exact.factors.left.shape[-1])
        for first in range(0, len(places), count):
            some = places[first : first + count]
            rows, columns = some // after.shape[1], some % after.shape[1]
            exact = stored[some].double() + self._exact.elements(rows + start, columns)
            mended[some] = round_to_odd(exact)

    def _too_small(self, after: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        """Their places, counted through all rows. numpy looks for places several times faster than torch does."""
        height = max(1, BLOCK_ELEMENTS // max(1, after.shape[1]))
        found = []
        for first in range(0, len(after), height):
            size, bound = after[first : first + height].abs(), least[first : first + height].unsqueeze(1)
            found.append(np.flatnonzero(size.numpy() < bound.numpy()) + first * after.shape[1])
        return torch.from_numpy(np.concatenate(found)) if found else torch.empty(0, dtype=torch.int64)

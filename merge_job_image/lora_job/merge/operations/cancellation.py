"""Elements of W + Δ that float32 does not know to their last stored digit, calculated again in float64.

Where W and Δ cancel, or the terms of Δ among themselves, rounding errors of the terms are units in the last place of what is left. With
an error of at most e in float32 and p significant bits in the stored dtype, that is where |result| < e · 2^(p+1): half a unit in the
last place of a number x is at least |x| · 2^-(p+1). Such elements are few, one in a thousand or less.
"""

from collections.abc import Callable

import numpy as np
import torch

from lora_job.merge.factors import Factors
from lora_job.merge.rounding import round_to_odd, significant_bits

__all__ = ["Cancellation"]

BLOCK_ELEMENTS = 2**16
"""256 KiB of float32: looked through while a core's cache holds them."""
AT_ONCE = 2**18
"""Numbers of float64 factors gathered at a time."""


class Cancellation:
    """Of one tensor. `error`: by row, what float32 may be off by; `exact` loads Δ in float64; `stored`: the dtype that comes after."""

    def __init__(self, error: torch.Tensor, *, exact: Callable[[], Factors], stored: torch.dtype) -> None:
        self._least = error * 2.0 ** (significant_bits(stored) + 1)
        self._load = exact
        self._exact: Factors | None = None

    def mend(self, after: torch.Tensor, *, before: torch.Tensor, start: int) -> None:
        """Overwrites elements of `after` (float32), whose first row is `start`, that are too small with what rounds as the float64 sum
        does.
        """
        height = max(1, BLOCK_ELEMENTS // max(1, after.shape[1]))
        for first in range(0, len(after), height):
            last = min(len(after), first + height)
            self._mend(after[first:last], before=before[first:last], start=start + first)

    def _mend(self, after: torch.Tensor, *, before: torch.Tensor, start: int) -> None:
        rows, columns = self._too_small(after, self._least[start : start + len(after)])
        if not len(rows):
            return
        if self._exact is None:
            self._exact = self._load()
        count = max(1, AT_ONCE // self._exact.left.shape[-1])
        for place in range(0, len(rows), count):
            row, column = rows[place : place + count], columns[place : place + count]
            exact = before[row, column].double() + self._exact.elements(row + start, column)
            after[row, column] = round_to_odd(exact)

    def _too_small(self, after: torch.Tensor, least: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and columns of them. Most rows have none, and a minimum is found sooner than a place."""
        size = after.abs()
        rows = (size.amin(dim=1) < least).nonzero().view(-1)
        # numpy looks for places several times faster than torch does.
        small = size.index_select(0, rows).numpy() < least.index_select(0, rows).unsqueeze(1).numpy()
        row, column = (torch.from_numpy(found) for found in np.nonzero(small))
        return rows[row], column

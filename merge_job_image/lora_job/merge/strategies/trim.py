"""ties, first half: which elements of a delta are among its largest. Exact, and without the delta ever being held.

Positive floats are in the order of their bits. So the threshold is found like a word in a dictionary:
    pass 1   counts by the upper 16 of the 31 bits of |δ|  ─► the page
    pass 2   counts by the lower 15 on that page           ─► the word
    pass 3   only where several elements are the threshold and not all are kept: the index of the last one that is
Each pass calculates the delta anew, block by block: arithmetic is cheap, memory is not.
|δ| is the float32 nearest to the float64 product, so that another order of summation finds the same threshold.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

__all__ = ["Trim", "count_kept", "find_trim", "kept_count", "magnitudes"]

LOW_BITS = 15
PAGES = 2**16
Blocks = Callable[[], Iterable[tuple[int, torch.Tensor]]]
"""Each call goes through the delta once: (index of the first element, elements)."""


class Trim(NamedTuple):
    """The elements that stay: magnitude above the threshold, or equal to it and not after `last`."""

    threshold: int
    """Bits of a float32 without its sign."""
    last: int
    """Index in row order."""

    def kept(self, bits: torch.Tensor, *, start: int) -> torch.Tensor:
        """Which of some consecutive elements stay; `bits` as magnitudes() gives them, `start` the first one's index."""
        equal = min(max(self.last + 1 - start, 0), bits.numel())
        kept = bits > self.threshold
        kept[:equal] |= bits[:equal] == self.threshold
        return kept


def kept_count(total: int, *, density: float) -> int:
    """How many elements stay: the whole part of density · total, at least one."""
    return min(total, max(1, int(density * total)))


def magnitudes(values: torch.Tensor) -> torch.Tensor:
    """|δ| as the bits of a float32, in one dimension: integers in the order of the magnitudes."""
    return values.to(torch.float32).view(torch.int32).bitwise_and(0x7FFFFFFF).reshape(-1)


def find_trim(blocks: Blocks, *, total: int, keep: int) -> Trim:
    """The trim that keeps exactly `keep` of `total` elements: the largest, and among equals those that come first."""
    if keep >= total:
        return Trim(0, total - 1)
    pages = torch.zeros(PAGES, dtype=torch.int64)
    for _, values in blocks():
        pages += torch.bincount(magnitudes(values) >> LOW_BITS, minlength=PAGES)
    page, above = _reach(pages, keep)
    words = torch.zeros(2**LOW_BITS, dtype=torch.int64)
    for _, values in blocks():
        bits = magnitudes(values)
        words += torch.bincount(bits[bits >> LOW_BITS == page] & (2**LOW_BITS - 1), minlength=2**LOW_BITS)
    word, more = _reach(words, keep - above)
    threshold = page << LOW_BITS | word
    quota = keep - above - more
    if quota == int(words[word]):
        return Trim(threshold, total - 1)
    return Trim(threshold, _index_of(blocks, threshold, quota))


def _reach(counts: torch.Tensor, keep: int) -> tuple[int, int]:
    """The highest bin from which on there are at least `keep` elements, and how many are above it."""
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, keep))
    return len(counts) - 1 - place, int(from_top[place - 1]) if place else 0


def _index_of(blocks: Blocks, threshold: int, quota: int) -> int:
    """Index of the quota-th element that is the threshold."""
    for start, values in blocks():
        places = (magnitudes(values) == threshold).nonzero().flatten()
        if quota <= len(places):
            return start + int(places[quota - 1])
        quota -= len(places)
    raise AssertionError("the passes over one delta differ")


def count_kept(blocks: Blocks, trim: Trim) -> int:
    """How many elements a trim keeps. Exactly the wanted number proves a threshold, however it was found."""
    return sum(int(trim.kept(magnitudes(values), start=start).sum()) for start, values in blocks())

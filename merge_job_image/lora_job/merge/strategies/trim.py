"""ties, first half: which elements of a delta are among its largest. Exact, and without the delta ever being held.

Positive floats are in the order of their bits. A sample tells between which two magnitudes the threshold must be:
    one pass   counts what is above, keeps what is between  ─► the threshold, and the index of the last equal one that stays
A sample that misleads, or values that crowd between the two, cost time and nothing else. Then the threshold is found like a word in a
dictionary:
    pass 1   counts by the upper 16 of the 31 bits of |δ|  ─► the page
    pass 2   counts by the lower 15 on that page           ─► the word
    pass 3   only where several elements are the threshold and not all are kept: the index of the last one that is
Each pass calculates the delta anew, block by block: arithmetic is cheap, memory is not.
|δ| is the float32 nearest to the float64 product, so that another order of summation finds the same threshold.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

__all__ = ["Trim", "find_trim", "kept_count", "magnitudes"]

LOW_BITS = 15
PAGES = 2**16
SLACK = 0.02
"""How far, as a share of all elements, the sample's threshold may be from the true one."""
MOST_BETWEEN = 2**19
"""Elements that one pass keeps: 6 MB."""
_INFINITE = 0x7F800000
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

    def thinned(self, values: torch.Tensor, *, start: int) -> torch.Tensor:
        """Some consecutive elements, 0 where they do not stay; `values` is float64 and may be overwritten."""
        end = start + values.numel()
        if start <= self.last < end - 1:
            return values.masked_fill_(~self.kept(magnitudes(values), start=start).view(values.shape), 0.0)
        # All that equal the threshold stay, or none: one comparison in float64 decides.
        least = self.threshold if end - 1 <= self.last else self.threshold + 1
        return torch.nn.functional.hardshrink(values, _below(least)) if least else values


def _below(bits: int) -> float:
    """The largest float64 that becomes less than this magnitude when it is rounded to float32, to even at a tie."""
    if bits > _INFINITE:
        return math.inf
    this, before = (float(np.uint32(one).view(np.float32)) for one in (bits, bits - 1))
    if bits == _INFINITE:
        this = 2.0**128  # what the next float32 would be
    middle = (this + before) / 2
    return math.nextafter(middle, 0.0) if bits % 2 == 0 else middle


def kept_count(total: int, *, density: float) -> int:
    """How many elements stay: the whole part of density · total, at least one."""
    return min(total, max(1, int(density * total)))


def magnitudes(values: torch.Tensor) -> torch.Tensor:
    """|δ| as the bits of a float32, in one dimension: integers in the order of the magnitudes."""
    return values.to(torch.float32).view(torch.int32).bitwise_and(0x7FFFFFFF).reshape(-1)


def find_trim(blocks: Blocks, *, total: int, keep: int, sample: torch.Tensor | None = None) -> Trim:
    """The trim that keeps exactly `keep` of `total` elements: the largest, and among equals those that come first.

    `sample`: some of the elements, from all over the delta.
    """
    if keep >= total:
        return Trim(0, total - 1)
    found = None if sample is None else _between(blocks, _bracket(sample, share=keep / total), total=total, keep=keep)
    return found or _by_counting(blocks, total=total, keep=keep)


def _bracket(sample: torch.Tensor, *, share: float) -> tuple[int, int]:
    """Two magnitudes that the threshold is most likely between."""
    ordered = magnitudes(sample).sort().values
    size, place = len(ordered), (1.0 - share) * len(ordered)
    low, high = int(place - SLACK * size), int(place + SLACK * size) + 1
    return int(ordered[low]) if low > 0 else 0, int(ordered[high]) if high < size else _INFINITE


def _between(blocks: Blocks, bracket: tuple[int, int], *, total: int, keep: int) -> Trim | None:
    """None when the threshold is not there, or too many elements are."""
    low, high = bracket
    above, held = 0, 0
    bits, places = [], []
    for start, values in blocks():
        found = magnitudes(values).numpy().view(np.uint32)
        above += int(np.count_nonzero(found > high))
        # Without a sign what is below `low` wraps around, so that one comparison is two.
        inside = np.flatnonzero(found - np.uint32(low) <= np.uint32(high - low))
        held += len(inside)
        if held > MOST_BETWEEN:
            return None
        bits.append(found[inside])
        places.append(inside + start)
    if not 0 < keep - above <= held:
        return None
    candidates = np.concatenate(bits)
    place = held - (keep - above)
    threshold = int(np.partition(candidates, place)[place])
    quota = keep - above - int(np.count_nonzero(candidates > threshold))
    equal = np.concatenate(places)[candidates == threshold]
    return Trim(threshold, total - 1 if quota == len(equal) else int(equal[quota - 1]))


def _by_counting(blocks: Blocks, *, total: int, keep: int) -> Trim:
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

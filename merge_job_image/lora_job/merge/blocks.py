"""Blocks of memory for chunks of tensors: lent for one tensor, given back after it, and the same pages serve the next.

Freed and asked for anew they come apart: what is allocated between two tensors settles in the gaps, the next tensor's buffers go
elsewhere, and a heap that holds a few megabytes at a time grows by tens.
"""

import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from lora_job.merge.stored_numbers import Bytes

__all__ = ["UNIT", "Blocks", "Take", "fresh"]

UNIT = 2**20
"""Sizes are rounded up to this, so that tensors of other widths, whose chunks differ by some bytes, use the same blocks."""
SMALL = 2**17
"""Up to this the heap does as well: it fills gaps and makes none."""
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
"""Shared, as mmap would have it, they would be no anonymous memory to whoever counts that."""
Take = Callable[[int], Bytes]
"""At least so many bytes, to write over."""


def fresh(size: int) -> Bytes:
    """Memory of its own, for whoever needs it once."""
    return np.empty(size, dtype=np.uint8)


class Blocks:
    """Shelves of blocks, one for each worker that asked at the same time; safe from any thread."""

    def __init__(self) -> None:
        self._shelves: list[list[Bytes]] = []
        self._lock = threading.Lock()

    @contextmanager
    def lent(self) -> Iterator[Take]:
        """A shelf to take from; at the end everything that was taken is the next borrower's."""
        with self._lock:
            shelf = self._shelves.pop() if self._shelves else []
        free = sorted(shelf, key=len)

        def take(size: int) -> Bytes:
            if size <= SMALL:
                return fresh(size)
            place = next((place for place, block in enumerate(free) if len(block) >= size), None)
            if place is not None:
                return free.pop(place)
            # A mapping of its own: in the heap it would be one more wall between gaps.
            shelf.append(np.frombuffer(mmap.mmap(-1, -(-size // UNIT) * UNIT, flags=PRIVATE), dtype=np.uint8))
            return shelf[-1]

        try:
            yield take
        finally:
            with self._lock:
                self._shelves.append(shelf)

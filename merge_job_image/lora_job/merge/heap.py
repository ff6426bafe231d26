"""Memory that is not given back and asked for again: pages of freed buffers are kept, and shared between threads; modules are no garbage.

A buffer of a mebibyte is by default a mapping of its own: each chunk would fault its pages in again, which costs more than the arithmetic
on them. And each thread would keep pages that the others cannot use.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keep_pages", "uncollected"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 32 * 2**20
"""Above this a buffer is no chunk, and its pages go back at once."""


def keep_pages() -> None:
    """For the rest of the process; nothing where the C library has no such settings."""
    library = ctypes.CDLL(None)
    mallopt, trim = getattr(library, "mallopt", None), getattr(library, "malloc_trim", None)
    if mallopt is None or trim is None:
        return
    trim(ctypes.c_size_t(0))  # what loading left free, which is of other sizes than chunks
    for name, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE)):
        mallopt(ctypes.c_int(name), ctypes.c_int(value))


@contextmanager
def uncollected() -> Iterator[None]:
    """Around imports: what they make stays to the end, and looking through it again and again for garbage costs a second."""
    loaded = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > loaded:
            gc.freeze()  # the little garbage in it too: to look for that takes longer than it is worth
        gc.enable()

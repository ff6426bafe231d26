"""Tells the kernel to bring what was written to the disk now, while more is calculated, and to keep no copy of it in memory.

Hints: without them the kernel begins when a share of all memory is dirty, and the wait at the end is as long as the whole output.
"""

import ctypes
import os

__all__ = ["begin_writeback", "drop_written"]

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4  # SYNC_FILE_RANGE_…
_LIBC = ctypes.CDLL(None)
_SYNC_FILE_RANGE = getattr(_LIBC, "sync_file_range", None)


def begin_writeback(descriptor: int, offset: int, size: int) -> None:
    """Starts it for a range of a file; where the system has no such call nothing happens."""
    _sync_range(descriptor, offset, size, _WRITE)


def drop_written(descriptor: int, offset: int, size: int) -> None:
    """Waits until a range of a file is on its way to the disk and no longer needed in memory, and takes it out of the page cache."""
    if _SYNC_FILE_RANGE is not None:
        _sync_range(descriptor, offset, size, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)


def _sync_range(descriptor: int, offset: int, size: int, what: int) -> None:
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(ctypes.c_int(descriptor), ctypes.c_int64(offset), ctypes.c_int64(size), ctypes.c_uint(what))

"""Tells the kernel to bring what was written to the disk now, while more is calculated; nobody waits for it here.

A hint: without it the kernel begins when a share of all memory is dirty, and the wait at the end is as long as the whole output.
"""

import ctypes

__all__ = ["begin_writeback"]

_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_LIBC = ctypes.CDLL(None)
_SYNC_FILE_RANGE = getattr(_LIBC, "sync_file_range", None)


def begin_writeback(descriptor: int, offset: int, size: int) -> None:
    """Starts it for a range of a file; where the system has no such call nothing happens."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(ctypes.c_int(descriptor), ctypes.c_int64(offset), ctypes.c_int64(size), ctypes.c_uint(_WRITE))

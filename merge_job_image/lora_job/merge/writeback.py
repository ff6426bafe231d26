"""Tells the kernel to bring what was written to the disk now, while more is calculated, and to keep no copy of it in memory.

In threads of their own: a busy disk makes whoever tells it wait.

Hints: without them the kernel begins when a share of all memory is dirty, and the wait at the end is as long as the whole output.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

__all__ = ["Writeback"]

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4  # SYNC_FILE_RANGE_…
_LIBC = ctypes.CDLL(None)
_SYNC_FILE_RANGE = getattr(_LIBC, "sync_file_range", None)


AHEAD = 64
"""Ranges that wait, each with a descriptor; whoever comes when there are more waits for the disk itself."""


class Writeback:
    """`with Writeback() as writeback: …`; safe from any thread."""

    def __init__(self) -> None:
        # Dropping waits for the disk, and the disk must have enough to do meanwhile.
        self._beginning, self._dropping = _Queue(), _Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._beginning.end(cancel=True)  # what is to stay was synced
        self._dropping.end(cancel=kind is not None)

    def begin(self, descriptor: int, offset: int, size: int) -> None:
        """A range of a file is on its way to the disk soon."""
        self._beginning.add(descriptor, lambda copy: _sync_range(copy, offset, size, _WRITE))

    def drop(self, descriptor: int, offset: int, size: int) -> None:
        """Nobody needs a range in memory any more: it leaves the page cache once it is on the disk."""

        def work(copy: int) -> None:
            _sync_range(copy, offset, size, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
            os.posix_fadvise(copy, offset, size, os.POSIX_FADV_DONTNEED)

        self._dropping.add(descriptor, work)


class _Queue:
    """Ranges of files, one after the other."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writeback")
        self._room = threading.Semaphore(AHEAD)

    def add(self, descriptor: int, work: Callable[[int], None]) -> None:
        if not self._room.acquire(blocking=False):
            work(descriptor)
            return
        copy = os.dup(descriptor)  # whoever asks may close theirs
        self._thread.submit(work, copy).add_done_callback(lambda _: self._done(copy))

    def _done(self, copy: int) -> None:
        os.close(copy)
        self._room.release()

    def end(self, *, cancel: bool) -> None:
        self._thread.shutdown(cancel_futures=cancel)


def _sync_range(descriptor: int, offset: int, size: int, what: int) -> None:
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(ctypes.c_int(descriptor), ctypes.c_int64(offset), ctypes.c_int64(size), ctypes.c_uint(what))

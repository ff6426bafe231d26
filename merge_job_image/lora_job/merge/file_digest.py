"""The sha256 of a file that is still being written: its bytes are hashed in order as far as they are there, beside the writing.

A digest cannot be made in parts, so whoever waits for the last byte would then wait for all of them. Read back from the file, not taken
from a writer's buffer: what is hashed is what a reader will find.

Behind the hash the page cache is emptied: a merge that keeps its output in memory drives out the base, which others read too, and every
new page costs more than one that was used a moment ago (decision 0046).
"""

import mmap
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from lora_job.hashing import Hasher
from lora_job.merge.writeback import Writeback

__all__ = ["FileDigest"]

BEHIND = 2**25
"""Bytes that stay in the page cache after they were hashed: whoever verifies them may be a little later."""


class FileDigest:
    """`with FileDigest(path, spans=…) as digest: digest.written(name); …; digest.result()`."""

    def __init__(
        self,
        path: Path,
        *,
        spans: Iterable[tuple[str, int]],
        check: Callable[[], None],
        hasher: Hasher,
        writeback: Writeback,
    ) -> None:
        """`spans`: (name, bytes) without holes from the start of the file; `check` raises when the work must stop."""
        self._path = path
        self._spans = list(spans)
        self._sizes = dict(self._spans)
        self._check = check
        self._hasher, self._writeback = hasher, writeback
        self._there: dict[str, int] = {}
        self._next, self._before = 0, 0
        self._lock = threading.Lock()
        self._hashed, self._dropped = 0, 0

    def __enter__(self) -> Self:
        size = sum(size for _, size in self._spans)
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._file = self._hasher.begin(self._path, size=size, there=0, urgent=True, tick=self._went_on)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._hasher.abandon(self._file)
        os.close(self._descriptor)

    def written(self, name: str, count: int | None = None) -> None:
        """The bytes of that name, or the first `count` of them, are in the file; safe from any thread."""
        with self._lock:
            self._there[name] = self._sizes[name] if count is None else count
            while (
                self._next < len(self._spans)
                and self._there.get(self._spans[self._next][0]) == self._spans[self._next][1]
            ):
                self._before += self._spans[self._next][1]
                self._next += 1
            begun = self._there.get(self._spans[self._next][0], 0) if self._next < len(self._spans) else 0
            self._hasher.written(self._file, self._before + begun)

    def result(self) -> str:
        """Lower-case hex, once everything is written."""
        return self._file.sha256.result()

    def _went_on(self, count: int) -> None:
        """Drops whole pages from behind the hash, once that is worth a call."""
        self._check()
        self._hashed += count
        end = (self._hashed - BEHIND) // mmap.PAGESIZE * mmap.PAGESIZE
        if end - self._dropped >= BEHIND:
            self._writeback.drop(self._descriptor, self._dropped, end - self._dropped)
            self._dropped = end

"""The sha256 of a file that is still being written: its bytes are hashed in order as far as they are there, by a thread of its own.

A digest cannot be made in parts, so whoever waits for the last byte would then wait for all of them. Read back from the file, not taken
from a writer's buffer: what is hashed is what a reader will find.

Behind the hash the page cache is emptied: a merge that keeps its output in memory drives out the base, which others read too, and every
new page costs more than one that was used a moment ago (decision 0046).
"""

import hashlib
import mmap
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from lora_job.merge.writeback import drop_written
from lora_job.outcome import Infrastructure
from lora_job.reasons import Reason

__all__ = ["FileDigest"]

AT_ONCE = 2**23
"""Bytes between two looks at whether the work must stop."""
BEHIND = 2**25
"""Bytes that stay in the page cache after they were hashed: whoever verifies them may be a little later."""


class FileDigest:
    """`with FileDigest(path, spans=…) as digest: digest.written(name); …; digest.result()`."""

    def __init__(self, path: Path, *, spans: Iterable[tuple[str, int]], check: Callable[[], None]) -> None:
        """`spans`: (name, bytes) without holes from the start of the file; `check` raises when the work must stop."""
        self._path = path
        self._spans = list(spans)
        self._check = check
        self._there: set[str] = set()
        self._changed = threading.Condition()
        self._abandoned = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digest")

    def __enter__(self) -> Self:
        self._sha256 = self._thread.submit(self._hash)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with self._changed:
                self._abandoned = True
                self._changed.notify()
        self._thread.shutdown()

    def written(self, name: str) -> None:
        """The bytes of that name are in the file; safe from any thread."""
        with self._changed:
            self._there.add(name)
            self._changed.notify()

    def result(self) -> str:
        """Lower-case hex, once everything is written."""
        return self._sha256.result()

    def _hash(self) -> str:
        state, position, dropped = hashlib.sha256(), 0, 0
        # Hashed where the kernel keeps them: a copy costs a sixth of the hash, and few calls mean few waits for the interpreter.
        with (
            self._path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
            memoryview(mapped) as content,
        ):
            if len(content) < sum(size for _, size in self._spans):
                raise Infrastructure(Reason.SOURCE_CHANGED, f"{self._path} is shorter than it was planned; run again")
            for name, size in self._spans:
                if not self._wait_for(name):
                    return ""
                for begin in range(position, position + size, AT_ONCE):
                    self._check()
                    done = min(begin + AT_ONCE, position + size)
                    state.update(content[begin:done])
                    dropped = _drop(file.fileno(), mapped, start=dropped, end=done - BEHIND)
                position += size
        return state.hexdigest()

    def _wait_for(self, name: str) -> bool:
        """False when nobody wants the digest any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or name in self._there)
            return not self._abandoned


def _drop(descriptor: int, mapped: mmap.mmap, *, start: int, end: int) -> int:
    """Drops whole pages from `start` on once that is worth a call; returns where the next ones begin."""
    end = end // mmap.PAGESIZE * mmap.PAGESIZE
    if end - start < BEHIND:
        return start
    mapped.madvise(mmap.MADV_DONTNEED, start, end - start)  # a mapped page is not dropped
    drop_written(descriptor, start, end - start)
    return end

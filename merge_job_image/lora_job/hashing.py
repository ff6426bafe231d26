"""sha256 of many files in a few threads. Each is hashed in order, as far as it is there: some are still being written.

Two files at a time take one core little more time than one (kernels/sha256.c, decision 0048): a thread takes two wherever two can go on,
there are never more threads than pairs, and a file that goes on alone now would leave another one alone later.
"""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from lora_job.kernels import sha256
from lora_job.kernels.sha256 import BLOCK
from lora_job.outcome import Infrastructure, Refused
from lora_job.reasons import Reason

__all__ = ["HashedFile", "Hasher"]

PIECE = 2**23
"""Bytes of a file between two looks at what can go on, and at whether the work must stop."""
WORTHWHILE = 2**18
"""Bytes that must be there of a file that is being written before a thread takes it up again."""
BACKLOG = 2**24
"""Bytes that may be there of such a file before it goes on alone: what is hashed at once need not be read from the disk."""
READ_AT_ONCE = 2**18
"""Stays in a core's cache between being read and being hashed."""
Tick = Callable[[int], None]


class _State(Protocol):
    """Of a file's first `offset` bytes; `failure` is 0 or why no more could be read: an errno, -1 where the file ended."""

    offset: int
    failure: int


class _Engine(Protocol):
    """kernels/sha256.py or, where that does not run, hashlib."""

    lanes: int

    def begin(self, descriptor: int) -> Any:
        """A state: nothing of the file is hashed."""

    def advance(self, files: Sequence[Any], size: int) -> None:
        """Hashes so much more of each, as far as each can be read."""

    def finish(self, file: Any, tail: bytes) -> str:
        """Lower-case hex, with the last bytes."""


class _Plain:
    """hashlib, one file at a time."""

    class State:
        def __init__(self, descriptor: int) -> None:
            self.descriptor, self.offset, self.failure = descriptor, 0, 0
            self.sha256 = hashlib.sha256()

    lanes = 1

    def begin(self, descriptor: int) -> State:
        return self.State(descriptor)

    def advance(self, files: Sequence[State], size: int) -> None:
        (file,) = files
        buffer, end = memoryview(bytearray(min(size, READ_AT_ONCE))), file.offset + size
        while file.offset < end and not file.failure:
            try:
                count = os.preadv(file.descriptor, [buffer[: end - file.offset]], file.offset)
            except OSError as error:
                file.failure = error.errno or errno.EIO
                return
            file.failure = 0 if count else -1
            file.sha256.update(buffer[:count])
            file.offset += count

    def finish(self, file: State, tail: bytes) -> str:
        file.sha256.update(tail)
        return file.sha256.hexdigest()


class HashedFile:
    """One file of a `Hasher`, whose lock guards what changes here but for the state: that is the thread's that has taken the file."""

    def __init__(self, path: Path, *, size: int, there: int, urgent: bool, tick: Tick) -> None:
        self.path, self.size, self.there, self.urgent, self.tick = path, size, there, urgent, tick
        self.descriptor = -1
        self.state: _State | None = None
        self.found: str | BaseException | None = None
        self.sha256 = Future[str]()
        """Lower-case hex."""

    @property
    def hashed(self) -> int:
        """Bytes from the start."""
        return 0 if self.state is None else self.size if isinstance(self.found, str) else self.state.offset

    @property
    def left(self) -> int:
        """Bytes that are not hashed, whether they are there or not."""
        return self.size - self.hashed

    @property
    def backlog(self) -> int:
        """Bytes of them that are there."""
        return self.there - self.hashed

    @property
    def can_go_on(self) -> bool:
        """Whether it is worth a thread's while."""
        return self.backlog >= min(WORTHWHILE, self.left)

    @property
    def whole_blocks(self) -> int:
        """Bytes that can be hashed now."""
        return min(self.backlog, PIECE) // BLOCK * BLOCK


class Hasher:
    """`with Hasher(threads=2) as hasher: file = hasher.begin(path, size=…); …; file.sha256.result()`; safe from any thread."""

    def __init__(self, *, threads: int) -> None:
        """`threads`: that take two files each."""
        self._engine: _Engine = sha256.find() or _Plain()
        self._changed = threading.Condition()
        self._waiting: list[HashedFile] = []
        self._taken: set[HashedFile] = set()
        # As many files at a time, whether a thread takes two of them or one.
        self._threads, self._running = 2 * threads // self._engine.lanes, 0
        self._pool = ThreadPoolExecutor(max_workers=self._threads, thread_name_prefix="sha256")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._threads = 0  # whoever hashes ends with the piece it has
        self._pool.shutdown()
        for file in list(self._waiting):
            self.abandon(file)

    def begin(
        self,
        path: str | Path,
        *,
        size: int,
        there: int | None = None,
        urgent: bool = False,
        tick: Tick = lambda _: None,
    ) -> HashedFile:
        """A file that has `size` bytes, or will have once they are `written`.

        `there`: how many are written now, all of them when left out. `urgent`: before those that are not, and not long after it is written.
        `tick`: told how many bytes were hashed, by the thread that did; what it raises is the file's result. So is `Infrastructure`
        where the file has another length, `Refused` where it may not be read and OSError where it cannot be.
        """
        file = HashedFile(Path(path), size=size, there=size if there is None else there, urgent=urgent, tick=tick)
        with self._changed:
            self._waiting.append(file)
            self._waiting.sort(key=lambda one: not one.urgent)
            self._start()
        return file

    def written(self, file: HashedFile, there: int) -> None:
        """So many bytes from its start are in the file now."""
        with self._changed:
            file.there = there
            self._start()

    def abandon(self, file: HashedFile) -> None:
        """Nobody wants its digest any more; nothing reads the file when this returns."""
        with self._changed:
            file.sha256.cancel()
            self._changed.wait_for(lambda: file not in self._taken)
            if file in self._waiting:
                self._waiting.remove(file)
                _close(file)
            self._start()  # nobody waits for it any more

    def _start(self) -> None:
        if self._running < self._threads and self._running < self._wanted() and self._next():
            self._running += 1
            try:
                self._pool.submit(self._work)
            except RuntimeError:  # the system gives no more threads; one that runs does the work
                self._running -= 1
                if self._running <= 0:
                    raise

    def _wanted(self) -> int:
        """Threads: one for each pair. One more would leave all of them with one file, each at a time."""
        files = len(self._taken) + sum(file.can_go_on for file in self._waiting)
        return min(self._threads, -(-files // self._engine.lanes))

    def _next(self) -> list[HashedFile]:
        """What a thread should take."""
        files = [file for file in self._waiting if file.can_go_on][: self._engine.lanes]
        if not files or len(files) == self._engine.lanes:
            return files
        (file,) = files
        others = (*self._waiting, *self._taken)
        late = file.urgent and file.backlog >= BACKLOG
        return files if late or all(other.left <= file.left for other in others) else []

    def _work(self) -> None:
        while files := self._take():
            _advance(files, self._engine)
            self._give_back(files)

    def _take(self) -> list[HashedFile]:
        """Nothing when this thread is one too many."""
        with self._changed:
            files = self._next() if self._running <= self._wanted() else []
            if not files:
                self._running -= 1
                return []
            self._taken.update(files)
            self._waiting = [file for file in self._waiting if file not in self._taken]
            self._start()
            return files

    def _give_back(self, files: Sequence[HashedFile]) -> None:
        with self._changed:
            self._taken.difference_update(files)
            for file in files:
                _tell(file)
                if file.sha256.done():
                    _close(file)
            self._waiting[:0] = [file for file in files if not file.sha256.done()]
            self._waiting.sort(key=lambda one: not one.urgent)
            self._changed.notify_all()


def _tell(file: HashedFile) -> None:
    """What was found, to whoever waits for it."""
    if file.found is None or file.sha256.cancelled():
        return
    if isinstance(file.found, str):
        file.sha256.set_result(file.found)
    else:
        file.sha256.set_exception(file.found)


def _advance(files: Sequence[HashedFile], engine: _Engine) -> None:
    """Hashes what is there of all of them; an error is what was found of the file that has it."""
    for file in files:
        with _kept(file):
            _open(file, engine)
    readable = [file for file in files if file.found is None]
    if not readable:
        return
    before = [file.hashed for file in readable]
    with _kept(*readable):
        engine.advance([file.state for file in readable], min(file.whole_blocks for file in readable))
    for file, start in zip(readable, before, strict=True):
        with _kept(file):
            _look(file, engine, new=file.hashed - start)


@contextmanager
def _kept(*files: HashedFile) -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # noqa: BLE001 (the one who asked for the digest has to know)
        for file in files:
            file.found = error


def _open(file: HashedFile, engine: _Engine) -> None:
    if file.state is not None:
        return
    try:
        file.descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise Refused(Reason.SOURCE_NOT_READABLE, f"{file.path}: not readable by user {os.geteuid()}") from None
    file.state = engine.begin(file.descriptor)


def _look(file: HashedFile, engine: _Engine, *, new: int) -> None:
    """After `new` bytes were hashed; at the end the digest is found."""
    if file.found is not None:
        return
    failure = 0 if file.state is None else file.state.failure
    if failure > 0:
        raise OSError(failure, os.strerror(failure), str(file.path))
    left = file.left
    at_end = file.there == file.size and left < BLOCK
    tail = os.pread(file.descriptor, left + 1, file.hashed) if at_end else b""
    if failure or (at_end and len(tail) != left):
        length = "longer" if len(tail) > left else "shorter"
        raise Infrastructure(Reason.SOURCE_CHANGED, f"{file.path} is {length} than it was, or was planned; run again")
    file.tick(new + len(tail))
    if at_end:
        file.found = engine.finish(file.state, tail)


def _close(file: HashedFile) -> None:
    if file.descriptor >= 0:
        with suppress(OSError):  # it was only read
            os.close(file.descriptor)
        file.descriptor = -1

"""Work in a few threads at a time: the first failure, or SIGTERM, stops the others at their next chunk."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from lora_job.outcome import Terminated
from lora_job.reasons import Reason

__all__ = ["Turns", "check_running", "in_lanes"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_running(stop: threading.Event) -> None:
    """Raises once the work must stop."""
    if stop.is_set():
        raise Terminated(Reason.TERMINATED, "stopped before it was finished; nothing was published")


def in_lanes(
    work: Callable[[Item], Result], items: Iterable[Item], *, lanes: int, stop: threading.Event
) -> list[Result]:
    """Results in the order of the items. `work` ends with Terminated soon after `stop` is set."""
    with ThreadPoolExecutor(max_workers=lanes) as pool:
        jobs = [pool.submit(work, item) for item in items]
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        except BaseException:  # SIGTERM finds the main thread waiting here
            _stop(jobs, stop)
            raise
        if _errors(jobs):
            _stop(jobs, stop)
            wait(jobs)
            # Those that were stopped may have ended before the one that failed: theirs is not the cause.
            raise min(_errors(jobs), key=lambda error: isinstance(error, Terminated))
    return [job.result() for job in jobs]


def _stop(jobs: Sequence[Future[Result]], stop: threading.Event) -> None:
    stop.set()
    for job in jobs:
        job.cancel()


def _errors(jobs: Sequence[Future[Result]]) -> list[BaseException]:
    ended = (job.exception() for job in jobs if job.done() and not job.cancelled())
    return [error for error in ended if error is not None]


class Turns:
    """So many tensors at a time, shared evenly by the files that are worked on: whoever has finished one helps with another, not before.

    In each file they begin in its order: what is not hashed yet stays in memory, and hashing waits for the first that is not there.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._at_work: Counter[str] = Counter()
        self._waiting: dict[str, set[int]] = {}
        self._changed = threading.Condition()

    @contextmanager
    def taken_for(self, file: str) -> Iterator[Callable[[int], AbstractContextManager[None]]]:
        """`with turn(place): …`, `place` being the tensor's in the file, waits until it is one's turn."""
        with self._changed:
            self._waiting[file] = set()
        try:
            yield lambda place: self._turn(file, place)
        finally:
            with self._changed:
                del self._waiting[file]
                self._changed.notify_all()

    @contextmanager
    def _turn(self, file: str, place: int) -> Iterator[None]:
        with self._changed:
            self._waiting[file].add(place)
            self._changed.wait_for(lambda: self._is_next(file, place))
            self._waiting[file].remove(place)
            self._at_work[file] += 1
            self._changed.notify_all()  # the one after it is the first now
        try:
            yield
        finally:
            with self._changed:
                self._at_work[file] -= 1
                self._changed.notify_all()

    def _is_next(self, file: str, place: int) -> bool:
        share = -(-self._workers // len(self._waiting))
        free = self._at_work[file] < share and self._at_work.total() < self._workers
        return free and place == min(self._waiting[file])

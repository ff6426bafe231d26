"""Work in a few threads at a time: the first failure, or SIGTERM, stops the others at their next chunk."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from lora_job.outcome import Terminated

__all__ = ["in_lanes"]

Item = TypeVar("Item")
Result = TypeVar("Result")


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

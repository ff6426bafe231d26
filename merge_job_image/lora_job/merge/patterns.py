"""rank_pattern and alpha_pattern: regular expressions from strangers, compiled once and matched under a time limit.

A pattern may be written to run for ever. The limit is one for all patterns of an adapter and counts processor time of compiling and
matching alone: neither a busy machine nor a large model makes a good pattern bad.
"""

import re
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Generic, TypeVar

from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["Budget", "Patterns"]

SECONDS = 0.75
Number = TypeVar("Number", int, float)


class _TooSlow(Exception):
    """The time is spent."""


class Budget:
    """Processor time that the patterns of one adapter may take together."""

    def __init__(self, path: Path, *, seconds: float = SECONDS) -> None:
        self._path = path
        self._left = seconds

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Interrupts the block, in the main thread, when nothing is left; elsewhere signals do not arrive and nothing is limited."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_signal: int, _frame: FrameType | None) -> None:
            raise _TooSlow

        previous = signal.signal(signal.SIGVTALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, max(self._left, 1e-6))
        try:
            yield
        except _TooSlow:
            self._left = 0.0
            raise Refused(
                Reason.MALFORMED_ADAPTER_CONFIG,
                f"{self._path}: rank_pattern and alpha_pattern did not match within {SECONDS:g} s; write them simpler",
            ) from None
        finally:
            self._left = min(self._left, signal.setitimer(signal.ITIMER_VIRTUAL, 0)[0])
            signal.signal(signal.SIGVTALRM, previous)


class Patterns(Generic[Number]):
    """Numbers by pattern, in file order."""

    def __init__(self, path: Path, field: str, values: Mapping[str, Number], *, budget: Budget) -> None:
        self._budget = budget
        self._values: tuple[tuple[re.Pattern[str], Number], ...] = ()
        if values:
            with budget.spend():
                self._values = tuple((_compiled(path, field, key), value) for key, value in values.items())

    def of(self, module: str, *, default: Number) -> Number:
        """The first whose pattern matches: PEFT's rule."""
        if not self._values:
            return default
        with self._budget.spend():
            return next((value for regex, value in self._values if regex.match(module)), default)


def _compiled(path: Path, field: str, key: str) -> re.Pattern[str]:
    """`(.*\\.)?(key)$`, matched from the start of the module's name."""
    try:
        with warnings.catch_warnings():
            # What Python only warns of may mean something else to the next version.
            warnings.simplefilter("error")
            return re.compile(rf"(.*\.)?({key})$")
    except (re.error, RecursionError, OverflowError, Warning):
        raise Refused(
            Reason.MALFORMED_ADAPTER_CONFIG, f"{path}: field {field!r}: {key!r} is not a regular expression"
        ) from None

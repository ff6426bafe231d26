"""How far a command is: a bar for a person at a terminal, one JSON line a second for everybody else.

Thread-safe, because shard workers advance the same stage. Not a log: nothing is said that the counters do not say.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

__all__ = ["Progress"]

INTERVAL_SECONDS = 1.0


class Progress:
    """One stage. `with Progress("merge", total=bytes, unit="B") as progress: progress.advance(4096)`."""

    def __init__(
        self,
        stage: str,
        *,
        total: int,
        unit: str = "B",
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stage = stage
        self._total = total
        self._unit = unit
        self._quiet = quiet
        self._clock = clock
        self._done = 0
        self._started = clock()
        self._due = self._started + INTERVAL_SECONDS
        self._lock = threading.Lock()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        # The bar is drawn on stderr, so that stdout stays what a pipe may read.
        if not self._quiet and sys.stdout.isatty() and sys.stderr.isatty():
            self._bar = _bar(self._unit)
            self._task = self._bar.add_task(self._stage, total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with self._lock:
            if kind is None:
                # The last line of a stage says that it is complete, whatever rounding the counting had.
                self._done = self._total
                if self._bar is not None:
                    self._bar.update(self._task, completed=self._total)
                else:
                    self._say()
            if self._bar is not None:
                self._bar.stop()

    def advance(self, amount: int) -> None:
        """More of the stage is done; safe from any thread."""
        with self._lock:
            self._done += amount
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done)
            elif self._clock() >= self._due:
                self._due = self._clock() + INTERVAL_SECONDS
                self._say()

    def _say(self) -> None:
        if self._quiet:
            return
        elapsed = self._clock() - self._started
        left = self._total - self._done
        eta = round(elapsed / self._done * left, 1) if self._done else None
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "stage": self._stage,
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "etaSeconds": eta,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _bar(unit: str) -> Any:
    # rich is slow to import and Jobs never need it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar  # noqa: PLC0415

    amount = [DownloadColumn(), TransferSpeedColumn()] if unit == "B" else [MofNCompleteColumn()]
    return Bar(
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=24),  # with bytes, rate and time it stays below 80 columns
        *amount,
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )

"""Where the time comes from. Passed in everywhere, so that a test can make it jump.

machine's clock    ────────┐jump         ┌──
                           └── +1 h ─────┘
SystemClock        ─────────────────────────  at the pace of the monotonic clock, drawn toward the machine's by 1 % of it
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "SystemClock"]

PULL = 0.01  # a duration is wrong by so much at most while a jump is being made up for


class Clock(Protocol):
    """The time that decisions use; it never jumps while a process lives."""

    def now(self) -> datetime:
        """The time in UTC."""


class SystemClock:
    """The machine's clock without its jumps: a pause of an hour must not be over because somebody set the clock.

    Durations come from stored starts, so a jump while no operator runs is seen as time that went by.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._now = wall()
        self._seen = monotonic()

    def now(self) -> datetime:
        """The time in UTC."""
        seen = self._monotonic()
        passed = seen - self._seen
        self._seen = seen
        self._now += timedelta(seconds=passed)
        behind = (self._wall() - self._now).total_seconds()
        self._now += timedelta(seconds=max(-PULL * passed, min(PULL * passed, behind)))
        return self._now

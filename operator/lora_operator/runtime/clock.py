"""Where the time comes from. Passed in everywhere, so that a test can make it jump."""

from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Wall clock; durations inside one process come from the event loop's monotonic clock."""

    def now(self) -> datetime:
        """The time in UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time in UTC."""
        return datetime.now(UTC)

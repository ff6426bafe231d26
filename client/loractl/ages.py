"""Durations as kubectl writes them: 45s, 3m20s, 5h, 12d. Computed here, because status holds only moments."""

from datetime import datetime

__all__ = ["age", "duration"]

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400
SCALE = (  # below which length, in which unit, and in which smaller one the rest is told (0: it is not)
    (10 * MINUTE, MINUTE, 1),
    (3 * HOUR, MINUTE, 0),
    (8 * HOUR, HOUR, MINUTE),
    (2 * DAY, HOUR, 0),
    (8 * DAY, DAY, HOUR),
    (2 * YEAR, DAY, 0),
)
NAMES = {1: "s", MINUTE: "m", HOUR: "h", DAY: "d", YEAR: "y"}


def age(moment: str, *, now: datetime) -> str:
    """Time since an RFC 3339 moment; empty when there is none."""
    if not moment:
        return ""
    return duration((now - datetime.fromisoformat(moment)).total_seconds())


def duration(seconds: float) -> str:
    """Two units while the first is small, one later, as people say it."""
    whole = max(0, int(seconds))
    if whole < 2 * MINUTE:
        return f"{whole}s"
    unit, small = next(((unit, small) for limit, unit, small in SCALE if whole < limit), (YEAR, 0))
    rest = whole % unit // small if small else 0
    return f"{whole // unit}{NAMES[unit]}" + (f"{rest}{NAMES[small]}" if rest else "")

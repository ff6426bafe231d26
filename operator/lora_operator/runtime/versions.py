"""Read your own writes: a reconcile must not decide on a cache that has not seen its last write yet."""

__all__ = ["is_older"]


def is_older(seen: str, written: str) -> bool:
    """Whether `seen` precedes `written`: resourceVersions of one resource are ordered integers; any other form compares as equal."""
    if not (seen.isdigit() and written.isdigit()):
        return False
    return int(seen) < int(written)

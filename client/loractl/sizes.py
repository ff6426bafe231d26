"""Bytes as people read them."""

__all__ = ["amount_of_bytes"]


def amount_of_bytes(count: float) -> str:
    """In the largest unit that keeps it above one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"

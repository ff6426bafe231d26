"""What this processor can do, as the kernel tells it; a virtual machine may hide any of it."""

import functools
from pathlib import Path

__all__ = ["flags"]

_CPU = Path("/proc/cpuinfo")


@functools.cache
def flags() -> frozenset[str]:
    """Names of extensions; none where there is no such list."""
    try:
        lines = _CPU.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.split()) for line in lines if line.startswith("flags")), frozenset())

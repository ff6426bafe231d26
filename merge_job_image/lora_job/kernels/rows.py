"""rows.c for Python: W + Δ rounded once, and the comparison of what was written, for 16-bit weights on this processor.

Where there is no library for it (another machine than x86-64, or one from before 2013) `find` tells nothing, and torch does the same work
in more time.
"""

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lora_job.kernels.build import library
from lora_job.kernels.processor import flags
from lora_job.merge.stored_numbers import Bits, Floats

__all__ = ["HALVES", "Kernels", "Merged", "Moved", "find", "usable"]

# What the compiler assumes of each generation, the best one first.
_V3 = {"abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
_NEEDS = {"x86_64_v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}, "x86_64_v3": _V3}
HALVES = {"BF16": "bfloat16", "F16": "float16"}
"""The dtypes of weights that there are kernels for."""


class _Sum(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("stored", "left", "right", "exact_left", "exact_right", "least")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "rank")),
        ("result", ctypes.c_void_p),
    )


class _Pair(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("before", "after", "along")),
        *((name, ctypes.c_int64) for name in ("rows", "columns")),
        ("projected", ctypes.c_void_p),
    )


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What rounding did to some rows."""

    lost: float
    """‖W'−(W+Δ)‖²"""
    moved: bool
    """Whether any number changed."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What some rows are beside what they were."""

    magnitude: float
    """‖W'‖²"""
    moved: float
    """‖W'−W‖²"""
    projected: npt.NDArray[np.float64]
    """(W'−W)x by row."""


class Kernels:
    """One loaded library. Arrays are contiguous; calls hold no lock of the interpreter."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def merge(
        self,
        stored: Bits,
        *,
        dtype: str,
        left: Floats,
        right: Floats,
        exact_left: Floats,
        exact_right: Floats,
        least: Floats,
        result: Bits,
    ) -> Merged:
        """Writes stored + left @ right to `result`, rounded once; both are bits of `dtype`, [rows, columns]. float32 but for the exact.

        The product is summed in float32, but in float64, from the exact factors, where the result is smaller than `least` of its row.
        """
        rows, columns = stored.shape
        rank = left.shape[1]
        _check(stored, (rows, columns), np.uint16)
        _check(result, (rows, columns), np.uint16)
        for one, exact, shape in ((left, exact_left, (rows, rank)), (right, exact_right, (rank, columns))):
            _check(one, shape, np.float32)
            _check(exact, shape, np.float64)
        _check(least, (rows,), np.float32)
        addresses = [one.ctypes.data for one in (stored, left, right, exact_left, exact_right, least)]
        given = _Sum(*addresses, rows, columns, rank, result.ctypes.data)
        lost, moved = ctypes.c_double(), ctypes.c_int64()
        self._call(f"merge_{HALVES[dtype]}", given, lost, moved)
        return Merged(lost=lost.value, moved=bool(moved.value))

    def compare(self, before: Bits, after: Bits, *, dtype: str, along: Floats) -> Moved:
        """Both are bits of `dtype`, [rows, columns]; `along` is the x of the projection, float32 [columns]."""
        rows, columns = before.shape
        for one in (before, after):
            _check(one, (rows, columns), np.uint16)
        _check(along, (columns,), np.float32)
        projected = np.empty(rows)
        addresses = [one.ctypes.data for one in (before, after, along)]
        magnitude, moved = ctypes.c_double(), ctypes.c_double()
        given = _Pair(*addresses, rows, columns, projected.ctypes.data)
        self._call(f"compare_{HALVES[dtype]}", given, magnitude, moved)
        return Moved(magnitude=magnitude.value, moved=moved.value, projected=projected)

    def _call(self, name: str, *arguments: ctypes.Structure | ctypes.c_double | ctypes.c_int64) -> None:
        self._library[name](*map(ctypes.byref, arguments))


def _check(array: npt.NDArray[np.generic], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """Compiled code reads what it is told to: a wrong shape must not get there."""
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise AssertionError(f"expected contiguous {dtype.__name__} {shape}, found {array.dtype} {array.shape}")


@functools.cache
def find() -> Kernels | None:
    """The best library that this processor runs."""
    found = usable()
    return Kernels(library(found[0])) if found else None


def usable() -> list[str]:
    """Generations that this processor belongs to and that there is a library for, the best one first."""
    return [generation for generation, needs in _NEEDS.items() if needs <= flags() and library(generation).is_file()]

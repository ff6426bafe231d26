"""Numbers as files store them, for numpy, which has no bfloat16: bytes to numbers, float64 to what is stored, and how far two are apart.

    stored dtype   F64       F32       F16       BF16
    here           float64   float32   float16   uint16, its bits; as a number the float32 that is equal to it

rounding.py does the same for torch, where a whole tensor is calculated.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Bits",
    "Bytes",
    "Exact",
    "Floats",
    "Stored",
    "as_numbers",
    "as_stored",
    "is_finite",
    "quiet",
    "round_once",
    "significant_bits",
    "ulp_distance",
]

Bytes = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.floating]
Exact = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]
"""Floats, or the bits of bfloat16."""
_HELD_AS: Mapping[str, type[np.generic]] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}
_INFINITE = {"F64": 0x7FF0_0000_0000_0000, "F32": 0x7F80_0000, "F16": 0x7C00, "BF16": 0x7F80}
"""Bits of +Inf: what is above it without its sign is NaN."""
_SIGNIFICANT_BITS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}
_AT_ONCE = 2**16
"""Elements looked at while a core's cache holds them."""
quiet = np.errstate(over="ignore", invalid="ignore")
"""Decorates what calculates with numbers that may be too large or none: the result is judged, and refused in words."""


def significant_bits(dtype: str) -> int:
    """Of a number's significand, the leading one included."""
    return _SIGNIFICANT_BITS[dtype]


def as_stored(data: Bytes, dtype: str) -> Stored:
    """The same memory, as what numpy holds that dtype as; flat."""
    return data.view(_HELD_AS[dtype])


def as_numbers(stored: Stored, dtype: str) -> Floats:
    """Of stored values, exactly; a copy for BF16 alone."""
    if dtype != "BF16":
        return stored
    return np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)


@quiet
def round_once(exact: Exact, dtype: str) -> Stored:
    """float64 to `dtype` with a single rounding to nearest even, as it is stored. Overflow is Inf."""
    if dtype != "BF16":
        return exact.astype(_HELD_AS[dtype])
    bits = _round_to_odd(exact).view(np.uint32)
    nearest = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    # Adding to the bits of a NaN could make it Inf or wrap around.
    return np.where(np.isnan(exact), np.uint16(0x7FC0), nearest)


def _round_to_odd(exact: Exact) -> npt.NDArray[np.float32]:
    """The float32 whose last bit is set whenever anything was cut off, so that a second rounding sees which side of a tie the number
    was on (Boldo and Melquiond, 2008).
    """
    nearest = exact.astype(np.float32)
    inexact = np.isfinite(nearest) & (nearest != exact)
    bits = nearest.view(np.uint32)
    truncated = bits - (inexact & (np.abs(nearest.astype(np.float64)) > np.abs(exact)))
    odd: npt.NDArray[np.float32] = (truncated | inexact).astype(np.uint32).view(np.float32)
    return odd


def ulp_distance(left: Stored, right: Stored) -> npt.NDArray[np.int64]:
    """How many representable numbers apart; −0 and +0 are the same. 16 and 32 bits; 64 within 2^62."""
    distance: npt.NDArray[np.int64] = np.abs(_ordered(left) - _ordered(right))
    return distance


def _ordered(stored: Stored) -> npt.NDArray[np.int64]:
    """Integers in the order of the numbers, neighbours one apart."""
    size = stored.dtype.itemsize
    bits = stored.view(_UNSIGNED[size])
    magnitude = (bits & _UNSIGNED[size](2 ** (8 * size - 1) - 1)).astype(np.int64)
    in_order: npt.NDArray[np.int64] = np.where(bits >> (8 * size - 1) != 0, -magnitude, magnitude)
    return in_order


def is_finite(data: Bytes, dtype: str, *, but_never: bool = False) -> bool:
    """Whether no number is NaN or Inf. `but_never`: −Inf may be there, the weight of what a mask hides."""
    size = np.dtype(_HELD_AS[dtype]).itemsize
    bits, infinite = data.view(_UNSIGNED[size]), _INFINITE[dtype]
    magnitudes = _UNSIGNED[size](2 ** (8 * size - 1) - 1)
    for first in range(0, len(bits), _AT_ONCE):
        some = bits[first : first + _AT_ONCE]
        largest = (some & magnitudes).max()
        if largest >= infinite and not (but_never and largest == infinite and not (some == infinite).any()):
            return False
    return True

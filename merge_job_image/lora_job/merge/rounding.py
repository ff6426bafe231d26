"""Rounding to the stored dtype, once; and how far two stored numbers are apart."""

import numpy as np
import torch

__all__ = ["TORCH", "round_once", "round_to_odd", "ulp_distance"]

TORCH: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_INTEGER = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def round_once(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float64 to `dtype` with a single rounding to nearest even.

    torch casts float64 to 16 bits by way of float32 and so rounds twice; rounding to odd first makes that harmless.
    """
    if dtype in {torch.float64, torch.float32}:
        return exact.to(dtype)
    if dtype is not torch.bfloat16:
        return round_to_odd(exact).to(dtype)
    nearest = exact.to(torch.float32).contiguous()
    rounded = nearest.to(dtype)
    # Two roundings differ from one only where the first has landed on a tie of the second: half of what bfloat16 cuts off, its lower
    # 16 bits. All halves are compared at once; where the upper one is equal to that too, nothing is changed that was right.
    halves = np.flatnonzero(nearest.numpy().view(np.uint16) == 0x8000)
    if len(halves):
        places = torch.from_numpy(halves // 2)
        rounded.view(-1)[places] = round_to_odd(exact.reshape(-1)[places]).to(dtype)
    return rounded


def round_to_odd(exact: torch.Tensor) -> torch.Tensor:
    """float64 to the float32 that rounds to 16 bits as the float64 itself would.

    Its last bit is set whenever anything was cut off, so a second rounding sees which side of a tie the number was on
    (Boldo and Melquiond, 2008).
    """
    nearest = exact.to(torch.float32)
    bits = nearest.view(torch.int32)
    too_large = nearest.double().abs() > exact.abs()
    inexact = nearest.double() != exact
    finite = torch.isfinite(nearest)
    truncated = torch.where(too_large & finite, bits - 1, bits)
    odd = torch.where(inexact & finite, truncated | 1, truncated)
    return odd.view(torch.float32)


def _ordered(values: torch.Tensor) -> torch.Tensor:
    """Integers in the order of the numbers, neighbours one apart; −0 and +0 are the same."""
    integer = _INTEGER[values.dtype]
    bits = values.contiguous().view(integer).to(torch.int64)
    return torch.where(bits < 0, torch.iinfo(integer).min - bits, bits)


def ulp_distance(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """How many representable numbers apart."""
    return (_ordered(left) - _ordered(right)).abs()

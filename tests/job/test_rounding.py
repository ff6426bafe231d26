"""One rounding from float64, whatever torch does on the way."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_job.merge.rounding import round_once

pytestmark = pytest.mark.engine

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
SIXTEEN = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def nearest(value: float, dtype: torch.dtype) -> float:
    """By fractions: of the two neighbours the closer one, at a tie the one whose last bit is 0."""
    info = torch.finfo(dtype)
    exponent = max(math.frexp(value)[1] - 1, math.frexp(info.tiny)[1] - 1)
    step = Fraction(2) ** (exponent + math.frexp(info.eps)[1] - 1)
    found = round(Fraction(value) / step) * step
    return math.copysign(float(found) if abs(found) <= info.max else math.inf, value)


@SIXTEEN
@settings(max_examples=400, deadline=None)
@given(
    value=st.one_of(
        st.floats(allow_nan=False, allow_infinity=False),
        st.floats(-10, 10),
        st.floats(-1e-38, 1e-38),
        st.floats(-7e-5, 7e-5),
    )
)
def test_any_number_is_rounded_to_its_nearest(dtype: torch.dtype, value: float) -> None:
    assert float(round_once(torch.tensor([value], dtype=torch.float64), dtype)) == nearest(value, dtype)


@SIXTEEN
@pytest.mark.parametrize("off", [0.0, 2.0**-38, -(2.0**-38), 2.0**-30, -(2.0**-30)])
def test_ties_and_what_float32_takes_for_ties(dtype: torch.dtype, off: float) -> None:
    stored = torch.randn(4096, generator=torch.Generator().manual_seed(3)).to(dtype).double()
    step = torch.finfo(dtype).eps * 2.0 ** torch.floor(torch.log2(stored.abs()))
    exact = stored + step / 2 * (1 + off)
    found = round_once(exact.view(64, 64), dtype).view(-1)
    assert found.double().tolist() == [nearest(value, dtype) for value in exact.tolist()]
    if off > 0:
        assert not torch.equal(found, exact.to(dtype)), "torch would have rounded these twice"


@DTYPES
def test_what_is_no_number_stays_so_and_zero_keeps_its_sign(dtype: torch.dtype) -> None:
    found = round_once(torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0], dtype=torch.float64), dtype)
    assert found.dtype is dtype
    assert np.isnan(found[0].item())
    assert found[1:3].tolist() == [math.inf, -math.inf]
    assert [math.copysign(1, value) for value in found[3:].tolist()] == [1, -1]


def test_columns_of_a_matrix_are_rounded_as_they_lie() -> None:
    exact = torch.randn(6, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert torch.equal(round_once(exact.T, torch.bfloat16), round_once(exact.T.contiguous(), torch.bfloat16))

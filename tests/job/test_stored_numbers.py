"""Numbers as files store them, by numpy: bit for bit what torch makes of them."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_job.merge import rounding
from lora_job.merge.rounding import TORCH
from lora_job.merge.stored_numbers import (
    Bytes,
    as_numbers,
    as_stored,
    is_finite,
    round_once,
    significant_bits,
    ulp_distance,
)

pytestmark = pytest.mark.engine

Exact = npt.NDArray[np.float64]
EVERY = ("BF16", "F16", "F32", "F64")
DTYPES = pytest.mark.parametrize("dtype", EVERY)
UNSIGNED: dict[str, type[np.unsignedinteger]] = {
    "BF16": np.uint16,
    "F16": np.uint16,
    "F32": np.uint32,
    "F64": np.uint64,
}
INTEGERS = {"BF16": torch.int16, "F16": torch.int16, "F32": torch.int32, "F64": torch.int64}
# Where dtypes change their ways: nothing, the smallest subnormal and the smallest normal number, the largest one, beyond it.
EDGES = [
    *(0.0, 1.0, math.inf, math.pi, 5e-324, 1e-310, 1e300, 1.7976931348623157e308),
    *(2.0**-24, 2.0**-25, 2.0**-14, 65504.0, 65519.999, 65520.0, 65520.001),
    *(2.0**-149, 2.0**-150, 2.0**-126, 2.0**-133, 2.0**-134, 2.0**-127),
    *(3.3895313892515355e38, 3.3961775292304601e38, 3.4028234663852886e38, 3.4028235677973366e38, 2.0**128, 2.0**129),
]


def bits(values: torch.Tensor, dtype: str) -> npt.NDArray[np.unsignedinteger]:
    """Of what torch holds."""
    found: npt.NDArray[np.unsignedinteger] = values.contiguous().view(INTEGERS[dtype]).numpy().view(UNSIGNED[dtype])
    return found


def held(stored: npt.NDArray[np.generic], dtype: str) -> torch.Tensor:
    """The same memory for torch."""
    return torch.from_numpy(stored.view(np.uint8)).view(TORCH[dtype])


def check_as_torch(exact: Exact, dtype: str) -> None:
    ours, theirs = round_once(exact, dtype), rounding.round_once(torch.from_numpy(exact), TORCH[dtype])
    assert ours.shape == exact.shape
    numbers = ~np.isnan(exact)
    assert np.array_equal(ours.view(UNSIGNED[dtype])[numbers], bits(theirs, dtype)[numbers])
    assert bool(torch.isnan(held(ours, dtype)).numpy()[~numbers].all()), "NaN stays NaN"


def around(values: Exact) -> Exact:
    """They, the float64 just below and above, and all of it below zero."""
    with np.errstate(over="ignore"):
        near = np.concatenate([values, np.nextafter(values, 0.0), np.nextafter(values, np.inf)])
    return np.concatenate([near, -near])


def wide(values: npt.NDArray[np.floating]) -> Exact:
    """In float64, signaling NaN too."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def patterns(dtype: str, count: int = 2**16) -> npt.NDArray[np.unsignedinteger]:
    """Every number of 16 bits; of more bits as many as that, all exponents among them."""
    size = 8 * np.dtype(UNSIGNED[dtype]).itemsize
    step = 2 ** (size - 16)
    some = np.arange(count, dtype=np.uint64) * np.uint64(step)
    if step > 1:
        some += np.random.default_rng(7).integers(0, step, count, dtype=np.uint64)
    return some.astype(UNSIGNED[dtype])


@DTYPES
def test_random_numbers_of_all_magnitudes_are_rounded_as_torch_rounds_them(dtype: str) -> None:
    random = np.random.default_rng(1)
    exponents = random.integers(-1080, 1024, 2**18)
    with np.errstate(under="ignore"):
        check_as_torch(np.ldexp(random.uniform(-1, 1, 2**18), exponents), dtype)
    # Most of those overflow 16 bits or vanish in them.
    check_as_torch(np.ldexp(random.uniform(-1, 1, 2**18), random.integers(-30, 18, 2**18)), dtype)
    check_as_torch(np.ldexp(random.uniform(-1, 1, 2**18), random.integers(-152, -120, 2**18)), dtype)


@DTYPES
def test_every_float64_whose_bits_are_drawn_is_rounded_as_torch_rounds_it(dtype: str) -> None:
    """NaN with all sorts of payloads among them; quiet ones, as arithmetic makes them."""
    drawn = np.random.default_rng(2).integers(0, 2**64, 2**18, dtype=np.uint64, endpoint=False)
    drawn[::64] |= np.uint64(0x7FF0_0000_0000_0000)
    drawn[np.isnan(drawn.view(np.float64))] |= np.uint64(0x0008_0000_0000_0000)
    assert int(np.isnan(drawn.view(np.float64)).sum()) > 1_000
    check_as_torch(drawn.view(np.float64), dtype)


@DTYPES
def test_edges_and_their_neighbours_are_rounded_as_torch_rounds_them(dtype: str) -> None:
    check_as_torch(around(np.array(EDGES)), dtype)
    found = round_once(np.array([0.0, -0.0, math.inf, -math.inf, 1e300, -1e300, 1e-320, -1e-320]), dtype)
    numbers = as_numbers(found, dtype).astype(np.float64)
    assert [math.copysign(1, value) for value in numbers.tolist()] == [1, -1] * 4
    assert numbers[2:4].tolist() == [math.inf, -math.inf]
    if dtype != "F64":
        assert numbers.tolist() == [0, 0, math.inf, -math.inf, math.inf, -math.inf, 0, 0]


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_tie_of_16_bits_and_a_hair_to_both_sides(dtype: str) -> None:
    stored = np.arange(0x7F80 if dtype == "BF16" else 0x7C00, dtype=np.uint16)
    numbers = held(stored, dtype).double().numpy()
    # Above the largest number is what the next one would be.
    above = np.append(numbers[1:], 2 * numbers[-1] - numbers[-2])
    ties = (numbers + above) / 2
    check_as_torch(around(ties), dtype)
    found = round_once(ties, dtype)
    assert np.array_equal(found.view(np.uint16), stored + (stored & 1)), "to the one whose last bit is 0"
    assert np.array_equal(round_once(np.nextafter(ties, 0.0), dtype).view(np.uint16), stored)
    assert np.array_equal(round_once(np.nextafter(ties, np.inf), dtype).view(np.uint16), stored + 1)
    twice = torch.from_numpy(np.nextafter(ties, np.inf)).to(TORCH[dtype])
    assert not np.array_equal(bits(twice, dtype), stored + 1), "by way of float32 some come out otherwise"


@pytest.mark.parametrize("dtype", ["F32", "F64"])
def test_ties_of_float32_and_a_hair_to_both_sides(dtype: str) -> None:
    numbers = patterns("F32")[: 2**15].view(np.float32)
    numbers = numbers[np.isfinite(numbers)]
    ties = (numbers.astype(np.float64) + np.nextafter(numbers, np.float32(np.inf)).astype(np.float64)) / 2
    check_as_torch(around(ties[np.isfinite(ties)]), dtype)


@DTYPES
@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(
        st.one_of(
            st.floats(allow_nan=False),
            st.just(math.nan),
            st.floats(-10, 10),
            st.floats(-1e-38, 1e-38),
            st.floats(-7e-5, 7e-5),
            st.floats(width=32),
            st.floats(width=16),
            st.sampled_from(EDGES),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_numbers_are_rounded_as_torch_rounds_them(dtype: str, values: list[float]) -> None:
    check_as_torch(np.array(values), dtype)


@DTYPES
def test_a_matrix_and_its_columns_are_rounded_as_they_lie(dtype: str) -> None:
    exact = np.random.default_rng(4).standard_normal((6, 8))
    whole = round_once(exact, dtype)
    assert whole.shape == (6, 8)
    assert np.array_equal(round_once(exact.T, dtype), whole.T)
    assert np.array_equal(round_once(exact[::2, 1:5], dtype), whole[::2, 1:5])


@DTYPES
def test_what_is_stored_is_rounded_to_itself(dtype: str) -> None:
    stored = patterns(dtype)
    numbers = wide(as_numbers(as_stored(stored.view(np.uint8), dtype), dtype))
    some = ~np.isnan(numbers)
    assert np.array_equal(round_once(numbers[some], dtype).view(UNSIGNED[dtype]), stored[some])


@DTYPES
def test_numbers_are_exactly_those_that_torch_sees_in_the_same_bytes(dtype: str) -> None:
    """All of them, where there are 2^16."""
    data = patterns(dtype).view(np.uint8)
    ours, theirs = as_numbers(as_stored(data, dtype), dtype), torch.from_numpy(data).view(TORCH[dtype]).double().numpy()
    assert np.array_equal(wide(ours), theirs, equal_nan=True)
    assert np.array_equal(np.signbit(ours), np.signbit(theirs))
    assert int(np.isnan(theirs).sum()) > 0


@DTYPES
def test_only_bfloat16_is_copied(dtype: str) -> None:
    data = patterns(dtype).view(np.uint8)
    stored = as_stored(data, dtype)
    assert np.shares_memory(stored, data)
    assert np.shares_memory(as_numbers(stored, dtype), data) == (dtype != "BF16")


@DTYPES
def test_the_bits_of_a_significand(dtype: str) -> None:
    assert 2.0 ** (1 - significant_bits(dtype)) == torch.finfo(TORCH[dtype]).eps


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_distances_are_those_of_torch(dtype: str) -> None:
    left = patterns(dtype)
    for right in (left[::-1].copy(), np.roll(left, 1), np.random.default_rng(5).permutation(left), left):
        ours = ulp_distance(as_stored(left.view(np.uint8), dtype), as_stored(right.view(np.uint8), dtype))
        theirs = rounding.ulp_distance(held(left, dtype), held(right, dtype)).numpy()
        assert np.array_equal(ours, theirs)


def test_distances_in_64_bits_are_those_of_torch_within_2_to_62() -> None:
    random = np.random.default_rng(6)
    left = random.standard_normal(2**16)
    right = left * (1 + random.uniform(-1, 1, 2**16) * 2.0 ** -random.integers(0, 54, 2**16).astype(np.float64))
    theirs = rounding.ulp_distance(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    assert np.array_equal(ulp_distance(left, right), theirs)
    assert {0, 1} <= set(theirs.tolist())


@DTYPES
def test_neighbours_are_one_apart_and_both_zeros_are_the_same(dtype: str) -> None:
    smallest, sign = np.array([0, 1, 2], UNSIGNED[dtype]), UNSIGNED[dtype](2 ** (np.iinfo(UNSIGNED[dtype]).bits - 1))
    below = smallest | sign
    found = [
        [int(one) for one in ulp_distance(as_stored(a.view(np.uint8), dtype), as_stored(b.view(np.uint8), dtype))]
        for a, b in itertools.product((smallest, below), repeat=2)
    ]
    assert found == [[0, 0, 0], [0, 2, 4], [0, 2, 4], [0, 0, 0]]
    two = round_once(np.array([1.0, -1.0]), dtype)
    step = 2.0 ** (1 - significant_bits(dtype))
    assert ulp_distance(two, round_once(np.array([1 + 3 * step, -1 - 2 * step]), dtype)).tolist() == [3, 2]


LARGE = 3 * 2**16 + 5
BAD = [math.nan, -math.nan, math.inf, -math.inf]
PLACES = [0, 2**16 - 1, 2**16, LARGE // 2, LARGE - 1]


def written(dtype: str, *changes: tuple[int, float]) -> Bytes:
    """More than is looked at in one go, with the largest numbers of both signs, zeros and subnormals; and some numbers put in."""
    values = torch.randn(LARGE, generator=torch.Generator().manual_seed(8)).to(TORCH[dtype])
    info = torch.finfo(TORCH[dtype])
    values[1], values[2], values[3], values[4], values[5] = info.max, info.min, 0.0, -0.0, info.smallest_normal / 2
    for place, value in changes:
        values[place] = value
    found: Bytes = values.view(torch.uint8).numpy()
    return found


@DTYPES
@pytest.mark.parametrize("but_never", [False, True])
def test_what_is_finite(dtype: str, but_never: bool) -> None:
    assert is_finite(written(dtype), dtype, but_never=but_never)
    assert is_finite(np.empty(0, dtype=np.uint8), dtype, but_never=but_never)


@DTYPES
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", BAD, ids=["nan", "-nan", "inf", "-inf"])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(dtype: str, place: int, bad: float) -> None:
    data = written(dtype, (place, bad))
    assert not is_finite(data, dtype)
    assert is_finite(data, dtype, but_never=True) == (bad == -math.inf), "only −Inf is the weight of what a mask hides"


@DTYPES
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", BAD[:3], ids=["nan", "-nan", "inf"])
def test_beside_minus_inf_nothing_else_passes(dtype: str, place: int, bad: float) -> None:
    """In the same stretch and in others, before it and after it."""
    for never in (place - 1, place + 1, 7, LARGE - 7):
        data = written(dtype, (never % LARGE, -math.inf), (place, bad))
        assert not is_finite(data, dtype, but_never=True)


@DTYPES
@pytest.mark.parametrize("sign", [0, 1], ids=["+", "-"])
@pytest.mark.parametrize("payload", [1, "all"], ids=["the least payload", "all bits"])
def test_a_nan_of_any_payload_is_no_infinity(dtype: str, sign: int, payload: int | str) -> None:
    width = significant_bits(dtype) - 1
    data = written(dtype, (9, math.inf))
    stored = data.view(UNSIGNED[dtype])
    infinite = int(stored[9])
    extra = 2**width - 1 if payload == "all" else 1
    stored[9] = infinite | extra | sign << (8 * stored.itemsize - 1)
    assert not is_finite(data, dtype)
    assert not is_finite(data, dtype, but_never=True)


@DTYPES
def test_every_exponent_is_finite_but_the_last(dtype: str) -> None:
    """Pattern by pattern what torch says."""
    stored = patterns(dtype)[:: 2**4].copy()
    wanted = torch.isfinite(held(stored, dtype)).tolist()
    assert [is_finite(stored[place : place + 1].view(np.uint8), dtype) for place in range(len(stored))] == wanted
    assert set(wanted) == {True, False}

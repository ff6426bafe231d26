"""ties' threshold against a plain sort, on values that are hard for a search by bits."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_job.merge.strategies import trim as trims
from lora_job.merge.strategies.trim import Trim, find_trim, kept_count, magnitudes

pytestmark = pytest.mark.engine

# Few distinct magnitudes: equal ones, zeros of both signs, neighbours, subnormals, the largest.
VALUES = (0.0, -0.0, 1.0, -1.0, 1.0 + 2.0**-23, -0.5, 2.0**-149, -(2.0**-140), 3.4e38, 1e-20, -1e-20, 7.25)
arrays = st.lists(st.one_of(st.sampled_from(VALUES), st.floats(width=32, allow_nan=False)), min_size=1, max_size=60)


def in_blocks(values: torch.Tensor, size: int) -> Iterator[tuple[int, torch.Tensor]]:
    for start in range(0, len(values), size):
        yield start, values[start : start + size]


def kept(values: torch.Tensor, trim: Trim, *, size: int) -> list[int]:
    found: list[int] = []
    for start, block in in_blocks(values, size):
        places = trim.kept(magnitudes(block), start=start).nonzero().flatten()
        found += [start + int(place) for place in places]
    return found


@settings(max_examples=300, deadline=None)
@given(numbers=arrays, share=st.floats(0.01, 1.0), size=st.integers(1, 70))
def test_the_largest_stay_and_of_equals_the_first(numbers: list[float], share: float, size: int) -> None:
    values = torch.tensor(numbers, dtype=torch.float64)
    keep = kept_count(len(values), density=share)
    trim = find_trim(lambda: in_blocks(values, size), total=len(values), keep=keep)
    order = sorted(range(len(values)), key=lambda place: (-abs(float(values[place].float())), place))
    assert kept(values, trim, size=size) == sorted(order[:keep])
    for start, block in in_blocks(values, size):
        wanted = torch.where(trim.kept(magnitudes(block), start=start), block, 0.0)
        assert torch.equal(trim.thinned(block.clone(), start=start), wanted)


@settings(max_examples=300, deadline=None)
@given(numbers=arrays, share=st.floats(0.01, 1.0), size=st.integers(1, 70), sample=arrays)
def test_a_sample_changes_nothing_however_misleading_it_is(
    numbers: list[float], share: float, size: int, sample: list[float]
) -> None:
    values = torch.tensor(numbers, dtype=torch.float64)
    keep = kept_count(len(values), density=share)
    found = [
        find_trim(lambda: in_blocks(values, size), total=len(values), keep=keep, sample=some)
        for some in (None, values, values[::3], torch.tensor(sample, dtype=torch.float64))
    ]
    assert [kept(values, trim, size=size) for trim in found] == [kept(values, found[0], size=size)] * len(found)


# Thresholds with an even and an odd last bit, at the ends of the range, and where a power of two begins.
THRESHOLDS = (0.0, 2.0**-149, 2.0**-148, 2.0**-126, 1.0, 1.0 + 2.0**-23, 0.1, 3.4028234663852886e38, math.inf)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("last", [-1, 10_000], ids=["equal ones go", "equal ones stay"])
def test_float64_is_cut_where_its_rounding_to_float32_would_be(threshold: float, last: int) -> None:
    """Around the threshold, and halfway to its neighbours, where the last bit decides."""
    bits = int(magnitudes(torch.tensor([threshold], dtype=torch.float64)))
    single = (
        torch.tensor([bits - 1, bits, bits + 1], dtype=torch.int32).clamp(0, 0x7F800000).view(torch.float32).double()
    )
    ends = torch.cat([single, (single[1:] + single[:-1]) / 2, torch.tensor([2.0**128 - 2.0**103], dtype=torch.float64)])
    near = [torch.nextafter(ends, torch.full_like(ends, to)) for to in (-math.inf, math.inf)]
    values = torch.cat([ends, *near])
    values = torch.cat([values, -values])
    trim = Trim(bits, last)
    kept_ones = trim.kept(magnitudes(values), start=0)
    thinned = trim.thinned(values.clone(), start=0)
    assert torch.equal(thinned, torch.where(kept_ones, values, 0.0))


@pytest.mark.parametrize("density", [0.01, 0.5, 0.99])
def test_a_good_sample_finds_the_threshold_in_one_pass(density: float, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    keep = kept_count(len(values), density=density)
    expected = find_trim(lambda: in_blocks(values, 4096), total=len(values), keep=keep)
    passes = []

    def counted() -> Iterator[tuple[int, torch.Tensor]]:
        passes.append(1)
        return in_blocks(values, 4096)

    assert find_trim(counted, total=len(values), keep=keep, sample=values[::10]) == expected
    assert len(passes) == 1
    monkeypatch.setattr(trims, "MOST_BETWEEN", 10)
    assert find_trim(counted, total=len(values), keep=keep, sample=values[::10]) == expected


@pytest.mark.parametrize(
    ("total", "density", "expected"),
    [(10, 0.25, 2), (10, 1.0, 10), (3, 0.1, 1), (1, 0.5, 1), (100, 0.29, 28)],
    ids=["the whole part", "everything", "at least one", "of one element", "as floats multiply: 0.29 · 100 < 29"],
)
def test_how_many_stay(total: int, density: float, expected: int) -> None:
    assert kept_count(total, density=density) == expected

"""ties' threshold against a plain sort, on values that are hard for a search by bits."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_job.merge.strategies.trim import Trim, count_kept, find_trim, kept_count, magnitudes

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
    assert count_kept(lambda: in_blocks(values, size), trim) == keep


@pytest.mark.parametrize(
    ("total", "density", "expected"),
    [(10, 0.25, 2), (10, 1.0, 10), (3, 0.1, 1), (1, 0.5, 1), (100, 0.29, 28)],
    ids=["the whole part", "everything", "at least one", "of one element", "as floats multiply: 0.29 · 100 < 29"],
)
def test_how_many_stay(total: int, density: float, expected: int) -> None:
    assert kept_count(total, density=density) == expected

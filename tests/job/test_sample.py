"""Which tensors are compared with float64 element by element."""

import itertools
from pathlib import Path

import pytest

from lora_job.merge.pipeline import MergeRequest, inspect_sources
from lora_job.merge.recipe import Recipe
from lora_job.merge.verify import SAMPLE_TENSORS, chosen_sample
from tests.job.models import BASE_NAME
from tests.job.refusing import Place
from tests.job.test_blocks import write_layers

pytestmark = pytest.mark.engine


def sampled(place: Place) -> tuple[list[str], frozenset[str]]:
    """All merged tensors in their order, and those of the sample."""
    plan = inspect_sources(MergeRequest(base=place.base, adapters=(place.adapter,), recipe=Recipe())).plan
    return [step.name for step in plan.steps if step.terms], chosen_sample(plan)


def test_a_small_model_is_compared_whole(place: Place) -> None:
    merged, sample = sampled(place)
    assert len(merged) == 6
    assert sample == set(merged)


@pytest.mark.parametrize("layers", [16, 17, 31, 40, 100])
def test_of_a_large_one_at_least_sixteen_the_first_the_last_and_some_from_all_over(tmp_path: Path, layers: int) -> None:
    place = Place(root=tmp_path, base=tmp_path / BASE_NAME, adapter=tmp_path / "adapter")
    write_layers(place, dict.fromkeys(range(layers), (8, 8)))
    merged, sample = sampled(place)
    assert len(merged) == layers
    assert len(sample) >= SAMPLE_TENSORS
    assert {merged[0], merged[-1]} <= sample
    places = sorted(merged.index(name) for name in sample)
    assert max(after - before for before, after in itertools.pairwise(places)) <= -(-layers // (SAMPLE_TENSORS - 1))
    assert sampled(place)[1] == sample

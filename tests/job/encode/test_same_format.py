"""The base in a candidate's format is, bit for bit, what a merge without an effect stores: only then is a forgotten adapter no effect."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_job.validate import loading
from lora_job.validate.fidelity import expect
from lora_job.validate.recipe import Recipe
from lora_job.validate.same_format import through_the_format
from tests.job.encode.conftest import Pair
from tests.job.encode.streaming import merge

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("quantization", ["bnb-nf4", "bnb-int8", "fp8-dynamic", "w4a16"])
def test_the_base_through_the_format_is_a_merge_of_nothing(
    pair: Callable[..., Pair], tmp_path: Path, architecture: str, quantization: str
) -> None:
    base, adapter = sources = pair(architecture, dtype=torch.bfloat16)
    nothing = merge(sources, tmp_path / "nothing", "--quantization", quantization, weight=0)
    weights = through_the_format(base, expect(base, [adapter], Recipe(quantization=quantization)))
    ours, problems = loading.load_model(base, dtype=torch.float32, weights=weights)
    theirs, _ = loading.load_model(nothing, dtype=torch.float32)
    plain, _ = loading.load_model(base, dtype=torch.float32)
    assert problems == ()
    wanted, before = theirs.state_dict(), plain.state_dict()
    assert {name: torch.equal(tensor, wanted[name]) for name, tensor in ours.state_dict().items()} == dict.fromkeys(
        wanted, True
    )
    assert any(not torch.equal(tensor, before[name]) for name, tensor in wanted.items())


def test_a_plain_recipe_changes_no_weight(pair: Callable[..., Pair]) -> None:
    base, adapter = pair("llama", dtype=torch.bfloat16)
    assert through_the_format(base, expect(base, [adapter], Recipe())) == {}

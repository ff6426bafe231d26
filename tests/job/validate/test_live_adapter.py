"""Which adapters can be switched on and off over their base, to compare the merged model with; and what a grown vocabulary means there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_job.validate import logits
from lora_job.validate.live_adapter import live_adapter
from lora_job.validate.recipe import Recipe
from lora_job.validate.sources import Compared
from tests.job.cases.case import Before, make
from tests.job.cases.families import VOCABULARY

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def grow(model: Any) -> None:
    model.resize_token_embeddings(VOCABULARY + 3, mean_resizing=False)


@pytest.mark.parametrize(
    ("config", "before", "recipe", "factor"),
    [
        pytest.param({}, None, Recipe(), 1.0, id="factors"),
        pytest.param({"modules_to_save": ["final_layernorm"]}, None, Recipe(), 1.0, id="saved modules"),
        pytest.param({}, None, Recipe(weights=(0.5,), scale=3.0), 1.5, id="factors at half their weight, scaled"),
        pytest.param({"bias": "all"}, None, Recipe(), None, id="trained biases, which PEFT writes into the base"),
        pytest.param({}, grow, Recipe(), None, id="a vocabulary that grew, which the base cannot take"),
    ],
)
def test_live_adapter(
    tmp_path: Path, config: dict[str, Any], before: Before | None, recipe: Recipe, factor: float | None
) -> None:
    case = make(tmp_path, "phi", config, before=before)
    compared = Compared(
        base=case.base, base_digest="", adapters=(case.adapter,), adapter_digests=("",), recipe=recipe, notes=()
    )
    assert live_adapter(compared) == (None if factor is None else logits.Live(adapter=case.adapter, factor=factor))


def test_tokens_that_one_of_two_models_lacks_are_left_out_of_their_divergence() -> None:
    draw = torch.Generator().manual_seed(1)
    small, large = torch.randn(3, 8, generator=draw), torch.randn(3, 11, generator=draw)
    found = logits._kl(large, small)
    assert torch.equal(found, logits._kl(large[:, :8], small))
    assert torch.equal(logits._kl(small, torch.cat([small, large[:, 8:]], dim=1)), torch.zeros(3))

"""A base's config.json says how large a model transformers builds (without weights) to tell names: its numbers are bounded."""

from pathlib import Path
from typing import Any

import pytest

from lora_job.merge.in_memory import MOST_EXPERTS, MOST_LAYERS, read_in_memory
from lora_job.model_config import ModelConfig
from lora_job.outcome import Refused
from lora_job.tensors import Checkpoint

pytestmark = pytest.mark.engine

EMPTY = Checkpoint(root=Path(), shards={}, file_of={}, index=None)
SMALL: dict[str, Any] = {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 16, "moe_intermediate_size": 16,
    "num_experts": 2, "num_experts_per_tok": 1, "vocab_size": 32,
}  # fmt: skip

TOO_MANY = [
    ("layers", {"num_hidden_layers": 10**9}, ("num_hidden_layers", "1000000000", str(MOST_LAYERS))),
    ("layers, as older models call them", {"n_layer": MOST_LAYERS + 1}, ("n_layer", str(MOST_LAYERS + 1))),
    ("experts", {"num_experts": 10**7}, ("num_experts", "10000000", str(MOST_EXPERTS))),
    ("experts, as others call them", {"n_routed_experts": MOST_EXPERTS + 1}, ("n_routed_experts",)),
    ("experts in all layers", {"num_hidden_layers": 1000, "num_experts": 1000}, ("1000 layers of 1000 experts",)),
    ("layers of the tower that sees", {"vision_config": {"depth": 10**6}}, ("depth", "1000000")),
]


def config(**fields: Any) -> ModelConfig:
    raw = SMALL | fields
    return ModelConfig(raw=raw, text=raw, model_type=raw["model_type"])


@pytest.mark.parametrize(("fields", "words"), [row[1:] for row in TOO_MANY], ids=[row[0] for row in TOO_MANY])
def test_more_modules_than_any_model_has_are_refused(fields: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as refused:
        read_in_memory(EMPTY, config(**fields))
    assert refused.value.reason == "MalformedConfig"
    assert [word for word in words if word not in refused.value.message] == []


@pytest.mark.parametrize(
    "names",
    [["Qwen3MoeForCausalLM"], ["Trainer"], ["set_seed"], ["no such model"], [7], 7, "Trainer", None],
    ids=["a model", "a class that is no model", "a function", "nothing", "a number", "no list", "a word", "not said"],
)
def test_only_a_model_is_built_whatever_architectures_says(names: Any) -> None:
    memory = read_in_memory(EMPTY, config(architectures=names))
    assert memory is None or "model.layers.1.mlp.gate.weight" in memory.shapes

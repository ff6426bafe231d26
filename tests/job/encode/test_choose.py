"""The layers chosen by their names on disk are the Linear layers that transformers builds."""

from typing import Any

import pytest
import torch

from lora_job.merge.encode import quantized_plan
from lora_job.merge.plan import Operation, Plan, ShardPlan, Step
from lora_job.merge.recipe import Quantization, Recipe
from lora_job.model_config import ModelConfig

pytestmark = pytest.mark.engine

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MOE = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": {}, "qwen2": {}, "qwen3": {}, "gemma": {}, "gemma2": {}, "gemma3_text": {}, "phi": {}, "phi3": {},
    "gpt_neox": {}, "olmo2": {}, "granite": {}, "starcoder2": {}, "stablelm": {}, "glm4": {}, "cohere": {}, "smollm3": {},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "gptj": {"n_embd": 64, "n_head": 4, "rotary_dim": 8},
    "mixtral": MOE, "qwen2_moe": MOE | {"shared_expert_intermediate_size": 32}, "qwen3_moe": MOE, "olmoe": MOE,
}  # fmt: skip


def linear_layers(architecture: str, settings: dict[str, Any]) -> tuple[set[str], Plan]:
    """(weights of nn.Linear but for the head and routers, a plan that copies all tensors) of a model that is never allocated."""
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - slow

    config = AutoConfig.for_model(architecture, **(SIZES | settings))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and module is not head and not name.endswith(("gate", "router"))
    }
    steps = tuple(
        Step(
            name=name,
            operation=Operation.COPY,
            dtype="BF16",
            shape=tuple(parameter.shape),
            source=name,
            source_dtype="BF16",
        )
        for name, parameter in model.named_parameters()
    )
    return linear, Plan(shards=(ShardPlan(file="model.safetensors", steps=steps),), config_changes={}, warnings=())


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_linear_layer_is_quantized_and_nothing_else(architecture: str) -> None:
    linear, plan = linear_layers(architecture, ARCHITECTURES[architecture])
    config = ModelConfig(raw={}, text={}, model_type=architecture)
    found = quantized_plan(plan, config=config, recipe=Recipe(quantization=Quantization.BNB_INT8))
    chosen = {step.name for step in found.steps if step.encoding}
    assert chosen == {name for name in linear if "shared_expert_gate" not in name}
    skipped = found.config_changes["quantization_config"]["llm_int8_skip_modules"]
    assert "lm_head" in skipped
    assert not chosen & {f"{module}.weight" for module in skipped}

"""Tiny random models of many architectures, made by transformers, with the layers that adapters usually change.

Random weights of a size at which every mistake shows, biases and norms included.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

HIDDEN, INNER, VOCABULARY = 32, 48, 64
SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


def _same(name: str) -> str:
    return name


def _mixtral(name: str) -> str:
    return name.replace(".mlp.", ".block_sparse_moe.")


def _neox(name: str) -> str:
    return name.replace("lm_head", "embed_out")


@dataclass(frozen=True, kw_only=True)
class Family:
    """An architecture: its config class, what differs from SIZES, which layers are adapted, and its names on disk."""

    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = GATED
    embedding: str = "model.embed_tokens"
    on_disk: Callable[[str], str] = _same
    """Name of a tensor in memory to its name on disk."""


_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 32, "vocab_size": VOCABULARY}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
FAMILIES: dict[str, Family] = {
    "llama": Family(config="LlamaConfig", settings={"head_dim": 8}),
    "qwen2": Family(config="Qwen2Config", settings={"tie_word_embeddings": True}),
    "qwen3": Family(config="Qwen3Config", settings={"head_dim": 8, "tie_word_embeddings": True}),
    "mistral": Family(config="MistralConfig", settings={"head_dim": 8}),
    "gemma": Family(config="GemmaConfig", settings={"head_dim": 8}),
    "gemma2": Family(config="Gemma2Config", settings={"head_dim": 8}),
    "phi": Family(config="PhiConfig", targets=("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")),
    "phi3": Family(config="Phi3Config", targets=("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    "gpt2": Family(
        config="GPT2Config", settings=_GPT2, targets=("c_attn", "c_proj", "c_fc"), embedding="transformer.wte"
    ),
    "gpt_neox": Family(
        config="GPTNeoXConfig",
        targets=("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
        embedding="gpt_neox.embed_in",
        on_disk=_neox,
    ),
    "opt": Family(
        config="OPTConfig",
        settings={"ffn_dim": INNER, "word_embed_proj_dim": HIDDEN},
        targets=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        embedding="model.decoder.embed_tokens",
    ),
    "mixtral": Family(
        config="MixtralConfig",
        settings={"num_local_experts": 4, "num_experts_per_tok": 2},
        targets=ATTENTION,
        on_disk=_mixtral,
    ),
    "qwen2_moe": Family(
        config="Qwen2MoeConfig", settings={**_EXPERTS, "shared_expert_intermediate_size": 40}, targets=ATTENTION
    ),
    "qwen3_moe": Family(config="Qwen3MoeConfig", settings={**_EXPERTS, "head_dim": 8}, targets=ATTENTION),
    "gpt_oss": Family(
        config="GptOssConfig",
        settings={"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "intermediate_size": 24},
        targets=ATTENTION,
    ),
}


def new_model(
    name: str, *, seed: int = 1, kind: Any = transformers.AutoModelForCausalLM, **settings: Any
) -> PreTrainedModel:
    """A random float32 model."""
    family = FAMILIES[name]
    merged = {**SIZES, **family.settings, **settings}
    model = kind.from_config(getattr(transformers, family.config)(**merged), attn_implementation="eager")
    return randomised(model, seed=seed)


def randomised(model: PreTrainedModel, *, seed: int) -> PreTrainedModel:
    """All parameters drawn anew; shared ones stay shared."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.15 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def save_base(
    model: PreTrainedModel, folder: Path, *, dtype: torch.dtype = torch.float32, sharded: bool = False
) -> PreTrainedModel:
    """Saves in a dtype and gives back what such a base is when it is loaded as float32."""
    limit = {"max_shard_size": "20KB"} if sharded else {}
    model.to(dtype).save_pretrained(folder, **limit)
    return load(folder, kind=type(model))


def load(folder: Path, *, kind: Any = transformers.AutoModelForCausalLM) -> PreTrainedModel:
    """A saved model in float32."""
    model: PreTrainedModel = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    """Of a fixed input that holds every token."""
    ids = torch.arange(VOCABULARY).reshape(2, -1)
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found

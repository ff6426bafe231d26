"""Synthetic llama-shaped checkpoints: the tensors, shapes and files that published models of that size have, with random values."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

__all__ = ["SHAPES", "Shape", "write_adapter", "write_base"]

RANK = 16
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Dimensions of a model; `files` is how many shards its weights have."""

    title: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    files: int

    def linear(self, layer: int) -> dict[str, tuple[int, int]]:
        """Weight by module of one layer, [out, in]."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        stem = f"model.layers.{layer}"
        return {
            f"{stem}.self_attn.q_proj": (queries, self.hidden),
            f"{stem}.self_attn.k_proj": (keys, self.hidden),
            f"{stem}.self_attn.v_proj": (keys, self.hidden),
            f"{stem}.self_attn.o_proj": (self.hidden, queries),
            f"{stem}.mlp.gate_proj": (self.inner, self.hidden),
            f"{stem}.mlp.up_proj": (self.inner, self.hidden),
            f"{stem}.mlp.down_proj": (self.hidden, self.inner),
        }


# Dimensions of well-known models of these sizes, embeddings tied as theirs are.
SHAPES = {
    "0.1": Shape(title="0.1 GB", hidden=512, inner=1536, layers=12, heads=8, kv_heads=2, head_size=64, vocabulary=32_000, files=1),
    "1": Shape(title="1 GB", hidden=896, inner=4864, layers=24, heads=14, kv_heads=2, head_size=64, vocabulary=151_936, files=1),
    "3": Shape(title="3 GB", hidden=1536, inner=8960, layers=28, heads=12, kv_heads=2, head_size=128, vocabulary=151_936, files=1),
    "6": Shape(title="6 GB (3B)", hidden=3072, inner=8192, layers=28, heads=24, kv_heads=8, head_size=128, vocabulary=128_256, files=2),
}  # fmt: skip


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (shape.vocabulary, shape.hidden)
    for layer in range(shape.layers):
        yield from ((f"{module}.weight", size) for module, size in shape.linear(layer).items())
        yield f"model.layers.{layer}.input_layernorm.weight", (shape.hidden,)
        yield f"model.layers.{layer}.post_attention_layernorm.weight", (shape.hidden,)
    yield "model.norm.weight", (shape.hidden,)


def _random(size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.empty(size, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)


def write_base(root: Path, shape: Shape) -> Path:
    """The checkpoint; returns its directory."""
    root.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": shape.hidden,
        "intermediate_size": shape.inner, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_size, "vocab_size": shape.vocabulary,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "dtype": "bfloat16",
    }  # fmt: skip
    (root / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(1)
    everything = list(_tensors(shape))
    share = -(-len(everything) // shape.files)
    parts = [everything[start : start + share] for start in range(0, len(everything), share)]
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        name = "model.safetensors" if len(parts) == 1 else f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        save_file({key: _random(size, generator) for key, size in part}, root / name, metadata={"format": "pt"})
        weight_map |= {key: name for key, _ in part}
    if len(parts) > 1:
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (root / "model.safetensors.index.json").write_text(json.dumps(index))
    return root


def write_adapter(root: Path, shape: Shape, *, base: Path) -> Path:
    """Rank 16 on all linear layers, as most adapters are; float32, as PEFT saves them."""
    root.mkdir(parents=True)
    generator = torch.Generator().manual_seed(2)
    found = {}
    for layer in range(shape.layers):
        for module, (rows, columns) in shape.linear(layer).items():
            stem = f"base_model.model.{module}"
            found[f"{stem}.lora_A.weight"] = torch.empty(RANK, columns).normal_(0, 0.02, generator=generator)
            found[f"{stem}.lora_B.weight"] = torch.empty(rows, RANK).normal_(0, 0.02, generator=generator)
    save_file(found, root / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK, "bias": "none",
        "base_model_name_or_path": str(base), "target_modules": list(MODULES),
    }  # fmt: skip
    (root / "adapter_config.json").write_text(json.dumps(config))
    return root

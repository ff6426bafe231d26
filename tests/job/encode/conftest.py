"""Small real models, made once: llama, and GPT-NeoX whose layers have biases and whose head has another name on disk."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")

Tensors = dict[str, torch.Tensor]
# 128 · 320 weights are 640 blocks of NF4, three nested ones. Widths are multiples of 64: bitsandbytes 0.50 calculates with the wrong
# scales on a CPU with AVX-512 where they are not (what it writes is right; shapes of that kind are compared one tensor at a time).
HIDDEN, INNER = 128, 320
SIZES = {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON = {"vocab_size": 128, "max_position_embeddings": 64, "tie_word_embeddings": False, "eos_token_id": 1}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, **COMMON, "num_key_value_heads": 2},
    "gpt_neox": {**SIZES, **COMMON},
}
TARGETS = {"llama": ("q_proj", "down_proj"), "gpt_neox": ("query_key_value", "dense_4h_to_h")}


def write_model(root: Path, architecture: str, *, dtype: torch.dtype, shard: str = "40KB", **config: Any) -> Path:
    """A model with random weights, saved by transformers in several files."""
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - slow

    torch.manual_seed(5)
    settings = AutoConfig.for_model(architecture, **{**ARCHITECTURES.get(architecture, {}), **config})
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3 if "embed" in name else 0.08)
    model.to(dtype).save_pretrained(root, max_shard_size=shard)
    return root


def tensors_of(root: Path) -> Tensors:
    """Every tensor of a directory."""
    found = {}
    for path in sorted(root.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return found


def write_adapter(root: Path, base: Path, *, targets: tuple[str, ...], size: float = 0.08) -> Path:
    """Rank 4 on the layers whose names end so."""
    root.mkdir(parents=True)
    draw = torch.Generator().manual_seed(6)
    parts: Tensors = {}
    for name, weight in tensors_of(base).items():
        if name.removesuffix(".weight").endswith(targets) and weight.ndim == 2:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            parts[f"{stem}.lora_A.weight"] = torch.randn((4, weight.shape[1]), generator=draw) * size
            parts[f"{stem}.lora_B.weight"] = torch.randn((weight.shape[0], 4), generator=draw) * size
    save_file(parts, root / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "base_model_name_or_path": base.name,
        "target_modules": list(targets),
        "bias": "none",
    }
    (root / "adapter_config.json").write_text(json.dumps(settings))
    return root


Pair = tuple[Path, Path]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """(base, adapter) of an architecture and dtype, made once each."""
    made: dict[tuple[str, torch.dtype], Pair] = {}

    def get(architecture: str, *, dtype: torch.dtype) -> Pair:
        key = (architecture, dtype)
        if key not in made:
            root = tmp_path_factory.mktemp(architecture)
            base = write_model(root / f"tiny-{architecture}", architecture, dtype=dtype)
            made[key] = base, write_adapter(root / "adapter", base, targets=TARGETS[architecture])
        return made[key]

    return get

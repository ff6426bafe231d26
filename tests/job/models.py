"""Tiny models and adapters for engine tests, written with safetensors: two layers, two shards, bfloat16."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

HIDDEN, INNER, VOCABULARY, LAYERS = 32, 48, 64, 2
BASE_NAME = "tiny-base"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}"
        found |= {
            f"{stem}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{stem}.self_attn.v_proj.weight": (16, HIDDEN),
            f"{stem}.mlp.down_proj.weight": (HIDDEN, INNER),
            f"{stem}.input_layernorm.weight": (HIDDEN,),
        }
    return found


def write_base(
    root: Path, *, sharded: bool = True, dtype: torch.dtype = torch.bfloat16, config: dict[str, Any] | None = None
) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(1)
    tensors = {name: (torch.randn(shape, generator=random) * 0.3).to(dtype) for name, shape in shapes().items()}
    (root / "config.json").write_text(json.dumps(config or CONFIG))
    if not sharded:
        save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})
        return root
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in files.items():
        save_file({name: tensors[name] for name in members}, root / file, metadata={"format": "pt"})
    weight_map = {name: file for file, members in files.items() for name in members}
    (root / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    )
    return root


def factors(
    *, rank: int = 4, seed: int = 2, size: float = 0.2, modules: tuple[str, ...] = ("q_proj", "v_proj", "down_proj")
) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes().items():
        if name.split(".")[-2] in modules:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            found[f"{stem}.lora_A.weight"] = torch.randn((rank, shape[1]), generator=random) * size
            found[f"{stem}.lora_B.weight"] = torch.randn((shape[0], rank), generator=random) * size
    return found


def write_adapter(root: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    save_file(factors() if tensors is None else tensors, root / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "base_model_name_or_path": BASE_NAME,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "bias": "none",
        **config,
    }
    (root / "adapter_config.json").write_text(json.dumps(settings))
    return root


def write_wide_base(root: Path, *, layers: int = 12, width: int = 2048) -> Path:
    """A base whose merge takes long enough to be interrupted: 8 MiB a layer, one file, the names of the tiny one."""
    root.mkdir(parents=True, exist_ok=True)
    row = torch.linspace(-1, 1, width, dtype=torch.bfloat16)
    tensors = {f"model.layers.{n}.self_attn.q_proj.weight": row.repeat(width, 1) for n in range(layers)}
    (root / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers, "hidden_size": width}))
    save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})
    return root


def write_wide_adapter(root: Path, *, layers: int = 12, width: int = 2048) -> Path:
    """Factors for every layer of the wide base."""
    random = torch.Generator().manual_seed(3)
    found = {}
    for layer in range(layers):
        stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        found[f"{stem}.lora_A.weight"] = torch.randn((4, width), generator=random) * 0.1
        found[f"{stem}.lora_B.weight"] = torch.randn((width, 4), generator=random) * 0.1
    return write_adapter(root, found)

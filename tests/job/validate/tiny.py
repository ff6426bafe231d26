"""A model of two small layers with the tokenizer of the example's base: the whole pipeline in seconds, answers without sense."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

# bitsandbytes on a CPU with AVX-512 needs widths that are multiples of 64.
HIDDEN, INNER, LAYERS, RANK, ALPHA = 64, 128, 2, 4, 8
MODULES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(LAYERS) for name in "qv"]


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """Three directories."""

    base: Path
    adapter: Path
    merged: Path


class Silent:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: dict[str, tuple[int, int]] = {}

    @contextmanager
    def stage(self, name: str, *, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        assert unit

        def tick(amount: int) -> None:
            done, _ = self.stages[name]
            self.stages[name] = (done + amount, total)

        self.stages[name] = (0, total)
        yield tick

    def note(self, message: str) -> None:
        self.notes.append(message)


def make(root: Path, tokenizer_from: Path) -> Tiny:
    """Base, adapter and their merge under `root`."""
    base = _make_base(root / "base", tokenizer_from)
    adapter = _make_adapter(root / "adapter")
    merged = Path(shutil.copytree(base, root / "merged"))
    add(merged, adapter)
    return Tiny(base=base, adapter=adapter, merged=merged)


def _make_base(target: Path, tokenizer_from: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(3)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        if (tokenizer_from / name).is_file():
            shutil.copy(tokenizer_from / name, target / name)
    return target


def _make_adapter(target: Path) -> Path:
    target.mkdir()
    draw = torch.Generator().manual_seed(4)
    tensors = {}
    for module in MODULES:
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(RANK, HIDDEN, generator=draw)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(HIDDEN, RANK, generator=draw) * 0.5
    save_file(tensors, target / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "tiny",
        "bias": "none",
    }
    (target / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


def add(model: Path, adapter: Path, *, factor: float = 1.0, skip: str = "none of them") -> None:
    """Adds an adapter to the tensors of a model in place, rounded once."""
    tensors, deltas = load_file(model / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for module in MODULES:
        if skip in module:
            continue
        a, b = (deltas[f"base_model.model.{module}.lora_{side}.weight"].double() for side in "AB")
        weight = tensors[f"{module}.weight"]
        tensors[f"{module}.weight"] = (weight.double() + factor * ALPHA / RANK * b @ a).to(weight.dtype)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

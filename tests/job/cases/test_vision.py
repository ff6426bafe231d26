"""Vision-language models: names in memory are not those on disk, and the language model lies inside of another."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig
from safetensors.torch import save_file

from tests.job.cases import oracle
from tests.job.cases.case import Case, adapted, merge
from tests.job.cases.families import SIZES, randomised, save_base

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def llava() -> Any:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=transformers.LlamaConfig(**SIZES, head_dim=8),
        image_token_index=63,
    )
    return randomised(transformers.LlavaForConditionalGeneration._from_config(config), seed=2)


def on_disk(name: str) -> str:
    """The layout of LLaVA's files: the language model is a whole model of its own."""
    for memory, disk in (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.", ""),
    ):
        if f"{name}.".startswith(memory):
            return f"{disk}{name[len(memory) :]}".rstrip(".") if name != "lm_head" else disk.rstrip(".")
    return name


def test_names_are_those_of_transformers_conversion_table(tmp_path: Path) -> None:
    base, adapter = tmp_path / "tiny-base", tmp_path / "adapter"
    model = save_base(llava(), base, dtype=torch.float32)
    names = set(oracle.read(base))
    memory = {name for name, _ in model.named_parameters()}
    assert names != memory, "transformers writes LLaVA's own layout"
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj", "linear_1", "fc1"])
    live = adapted(model, config, folder=adapter)
    case = Case(family="llava", live=live, kind=type(model), base=base, adapter=adapter, output=tmp_path / "out")
    assert merge(case) == 0
    wanted = oracle.expected(live, oracle.read(base), on_disk=on_disk)
    assert any("vision" in name for name in wanted)
    case.check_tensors(wanted)
    assert torch.allclose(_text_logits(case.reloaded()), _text_logits(live), atol=1e-4)


def _text_logits(model: Any) -> torch.Tensor:
    ids = torch.arange(60).reshape(2, -1)
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found


def test_experts_that_lie_the_other_way_round_on_disk(tmp_path: Path) -> None:
    """Qwen3-VL-MoE's published files keep [experts, in, out], transformers [experts, out, in]."""
    config = transformers.Qwen3VLMoeConfig(
        text_config={
            **SIZES,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]},
        },
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24, "out_hidden_size": 32},
    )
    base, adapter = tmp_path / "tiny-base", tmp_path / "adapter"
    kind = transformers.Qwen3VLMoeForConditionalGeneration
    model = save_base(randomised(kind._from_config(config), seed=2), base, dtype=torch.float32)
    published = {
        name: tensor.mT.contiguous() if ".experts." in name else tensor for name, tensor in oracle.read(base).items()
    }
    save_file(published, base / "model.safetensors", metadata={"format": "pt"})
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    factors = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], target_parameters=targets)
    live = adapted(model, factors, folder=adapter)
    case = Case(family="", live=live, kind=kind, base=base, adapter=adapter, output=tmp_path / "out")
    assert merge(case) == 0
    found, wanted = oracle.read(case.output), oracle.experts(live)
    assert len(wanted) == 4
    for name, exact in wanted.items():
        assert torch.allclose(found[name].double(), exact.mT, rtol=1e-6, atol=1e-7), name
    assert torch.allclose(_text_logits(case.reloaded()), _text_logits(live), atol=1e-4)

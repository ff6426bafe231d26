"""The committed adapters: small, for the base they name, and the broken one broken in the way it says."""

import json
from pathlib import Path

import pytest
from convert_base import MODEL_NAME
from safetensors import safe_open

ADAPTERS = Path(__file__).resolve().parents[2] / "examples" / "finance_lora" / "adapters"
TRAINED = ("v1", "v2")
LARGEST = 3_000_000
WIDTHS = {
    "q_proj": (576, 576),
    "k_proj": (576, 192),
    "v_proj": (576, 192),
    "o_proj": (576, 576),
    "gate_proj": (576, 1536),
    "up_proj": (576, 1536),
    "down_proj": (1536, 576),
}
LAYERS = 30


def config_of(name: str) -> dict[str, object]:
    return dict(json.loads((ADAPTERS / name / "adapter_config.json").read_text(encoding="utf-8")))


def tensors_of(name: str) -> dict[str, tuple[str, list[int]]]:
    with safe_open(ADAPTERS / name / "adapter_model.safetensors", framework="np") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        return {key: (found.get_dtype(), found.get_shape()) for key, found in slices.items()}


@pytest.mark.parametrize("name", [*TRAINED, "broken-wrong-base"])
def test_an_adapter_is_small_and_says_in_words_what_it_is(name: str) -> None:
    folder = ADAPTERS / name
    assert {path.name for path in folder.iterdir()} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert (folder / "adapter_model.safetensors").stat().st_size <= LARGEST
    assert "Apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_adapter_changes_all_210_linear_layers_of_the_example_base(name: str) -> None:
    config = config_of(name)
    rank = config["r"]
    assert config["base_model_name_or_path"] == MODEL_NAME
    expected = {}
    for layer in range(LAYERS):
        for module, (inputs, outputs) in WIDTHS.items():
            parent = "self_attn" if module[0] in "qkvo" else "mlp"
            prefix = f"base_model.model.model.layers.{layer}.{parent}.{module}"
            expected[f"{prefix}.lora_A.weight"] = ("BF16", [rank, inputs])
            expected[f"{prefix}.lora_B.weight"] = ("BF16", [outputs, rank])
    assert tensors_of(name) == expected


def test_the_broken_adapter_names_another_base_and_fits_another_width() -> None:
    assert config_of("broken-wrong-base")["base_model_name_or_path"] == "tiny-finance-llama"
    widths = {shape[1] for key, (_, shape) in tensors_of("broken-wrong-base").items() if "lora_A" in key}
    assert widths == {384}

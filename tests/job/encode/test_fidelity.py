"""Validation's fidelity on quantized models: a correct one is not accused, and what is wrong is found and named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_job.validate import fidelity
from lora_job.validate.fidelity import Checkpoint, Fidelity, expect, non_finite_tensors
from lora_job.validate.recipe import Recipe
from tests.job.encode.conftest import Pair
from tests.job.encode.streaming import merge

pytestmark = pytest.mark.engine

FORMATS = ["bnb-nf4", "bnb-int8", "fp8-dynamic", "w4a16"]
LAYER = "model.layers.0.mlp.down_proj"
TOUCHED = 4


@pytest.fixture
def llama(pair: Callable[..., Pair]) -> Pair:
    return pair("llama", dtype=torch.bfloat16)


def check(model: Path, pair: Pair, quantization: str, *, dtype: str = "auto") -> Fidelity:
    base, adapter = pair
    recipe = Recipe(quantization=quantization, dtype=dtype)
    expected = expect(base, [adapter], recipe)
    return fidelity.check(model=Checkpoint(model), expected=expected, tick=lambda _: None)


def change(model: Path, name: str, edit: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Edits one tensor of a model; None removes it."""
    path = next(path for path in sorted(model.glob("*.safetensors")) if name in load_file(path))
    tensors = load_file(path)
    edited = edit(tensors.pop(name))
    if edited is not None:
        tensors[name] = edited
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("quantization", FORMATS)
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_correct_merge_is_not_accused(llama: Pair, tmp_path: Path, quantization: str, dtype: str) -> None:
    model = merge(llama, tmp_path / "out", "--quantization", quantization, "--dtype", dtype)
    found = check(model, llama, quantization, dtype=dtype)
    assert found.problems == []
    assert found.merged == TOUCHED
    assert found.retention_min == pytest.approx(1, abs=0.1)
    assert non_finite_tensors(Checkpoint(model), tick=lambda _: None) == []


@pytest.mark.parametrize("quantization", FORMATS)
def test_a_forgotten_adapter_is_found_in_every_layer_it_touches(llama: Pair, tmp_path: Path, quantization: str) -> None:
    model = merge(llama, tmp_path / "out", "--quantization", quantization, weight=0)
    found = check(model, llama, quantization)
    assert len(found.mismatched) == TOUCHED
    assert found.retention_min == pytest.approx(0, abs=0.1)
    assert "of the adapter's change is there" in found.problems[0]


def flipped(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1).view(torch.uint8)[7] ^= 1 << 4
    return tensor


TELLING = {"bnb-nf4": "weight.nested_absmax", "bnb-int8": "SCB", "fp8-dynamic": "weight_scale", "w4a16": "weight_scale"}


@pytest.mark.parametrize("quantization", FORMATS)
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        pytest.param(lambda scales: scales * 1.05, "error bound away", id="scales that are off"),
        pytest.param(lambda scales: scales * float("nan"), "NaN", id="scales that are no numbers"),
        pytest.param(lambda _: None, "is missing", id="scales that are missing"),
        pytest.param(lambda scales: scales[:1].clone(), "stores", id="scales of another shape"),
    ],
)
def test_damage_is_found_and_named(
    llama: Pair, tmp_path: Path, quantization: str, edit: Callable[[torch.Tensor], torch.Tensor | None], words: str
) -> None:
    model = merge(llama, tmp_path / "out", "--quantization", quantization)
    change(model, f"{LAYER}.{TELLING[quantization]}", edit)
    found = check(model, llama, quantization)
    assert len(found.mismatched) == 1
    assert LAYER in found.problems[0]
    assert words in found.problems[0]


@pytest.mark.parametrize("quantization", FORMATS)
def test_one_changed_code_is_found(llama: Pair, tmp_path: Path, quantization: str) -> None:
    model = merge(llama, tmp_path / "out", "--quantization", quantization)
    change(model, f"{LAYER}.{'weight_packed' if quantization == 'w4a16' else 'weight'}", flipped)
    assert [finding.tensor for finding in check(model, llama, quantization).mismatched] == [f"{LAYER}.weight"]


def test_a_model_that_was_not_quantized_does_not_pass_as_quantized(llama: Pair, tmp_path: Path) -> None:
    model = merge(llama, tmp_path / "out")
    problems = check(model, llama, "bnb-nf4").problems
    assert f"{LAYER}.weight.absmax: is missing from the merged model" in problems


def test_an_fp8_code_that_is_no_number_is_found_without_sources(llama: Pair, tmp_path: Path) -> None:
    model = merge(llama, tmp_path / "out", "--quantization", "fp8-dynamic")

    def spoilt(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(torch.uint8)[3, 4] = 0x7F
        return tensor

    change(model, f"{LAYER}.weight", spoilt)
    assert non_finite_tensors(Checkpoint(model), tick=lambda _: None) == [f"{LAYER}.weight"]

"""Fidelity on small checkpoints: every way of not being base + adapter is found, and a correct merge is not accused."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_job.outcome import Refused
from lora_job.validate import fidelity
from lora_job.validate.fidelity import Checkpoint, Fidelity, expect
from lora_job.validate.recipe import Recipe

pytestmark = pytest.mark.engine

Tensors = dict[str, torch.Tensor]
MODULES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(3) for name in "qkvo"]
ROWS, COLUMNS, RANK, ALPHA = 48, 32, 4, 8


def base_tensors(*, dtype: torch.dtype = torch.bfloat16, seed: int = 1) -> Tensors:
    draw = torch.Generator().manual_seed(seed)
    tensors = {f"{module}.weight": (torch.randn(ROWS, COLUMNS, generator=draw) * 0.05).to(dtype) for module in MODULES}
    return tensors | {
        "model.embed_tokens.weight": torch.randn(100, COLUMNS, generator=draw).to(dtype),
        "model.norm.weight": torch.ones(COLUMNS, dtype=dtype),
        "model.step": torch.tensor(7),
    }


def adapter_tensors(*, seed: int = 2, scale: float = 0.02) -> Tensors:
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for module in MODULES:
        found[f"base_model.model.{module}.lora_A.weight"] = torch.randn(RANK, COLUMNS, generator=draw)
        found[f"base_model.model.{module}.lora_B.weight"] = torch.randn(ROWS, RANK, generator=draw) * scale
    return found


def merged_tensors(base: Tensors, adapter: Tensors, *, scale: float = ALPHA / RANK) -> Tensors:
    """In float64 and rounded once: the oracle."""
    found = dict(base)
    for module in MODULES:
        delta = adapter[f"base_model.model.{module}.lora_B.weight"].double() @ (
            adapter[f"base_model.model.{module}.lora_A.weight"].double()
        )
        weight = base[f"{module}.weight"]
        found[f"{module}.weight"] = (weight.double() + scale * delta).to(weight.dtype)
    return found


def write(directory: Path, tensors: Tensors) -> Path:
    directory.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    config = {"model_type": "llama", "tie_word_embeddings": False}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def write_adapter(directory: Path, tensors: Tensors, **config: object) -> Path:
    directory.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA} | config
    (directory / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory


def check(tmp_path: Path, *, model: Tensors, base: Tensors, adapter: Tensors, **config: object) -> Fidelity:
    folder = write_adapter(tmp_path / "adapter", adapter, **config)
    return fidelity.check(
        model=Checkpoint(write(tmp_path / "model", model)),
        expected=expect(write(tmp_path / "base", base), [folder], Recipe()),
        tick=lambda _: None,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_correct_merge_is_not_accused(tmp_path: Path, dtype: torch.dtype) -> None:
    base, adapter = base_tensors(dtype=dtype), adapter_tensors()
    found = check(tmp_path, model=merged_tensors(base, adapter), base=base, adapter=adapter)
    assert found.problems == []
    assert (found.checked, found.merged) == (15, 12)
    assert found.retention_min == pytest.approx(1, abs=0.05)


def forget_adapter(_merged: Tensors, base: Tensors) -> Tensors:
    return base


def forget_one_module(merged: Tensors, base: Tensors) -> Tensors:
    name = f"{MODULES[7]}.weight"
    return merged | {name: base[name]}


def halve_the_scale(_merged: Tensors, base: Tensors) -> Tensors:
    return merged_tensors(base, adapter_tensors(), scale=ALPHA / RANK / 2)


def use_another_base(_merged: Tensors, _base: Tensors) -> Tensors:
    return merged_tensors(base_tensors(seed=9), adapter_tensors())


def change_one_element(merged: Tensors, _base: Tensors) -> Tensors:
    name = f"{MODULES[3]}.weight"
    changed = merged[name].clone()
    changed[5, 6] += 1
    return merged | {name: changed}


def change_an_untouched_tensor(merged: Tensors, _base: Tensors) -> Tensors:
    changed = merged["model.norm.weight"].clone()
    changed[0] = 1.0078125
    return merged | {"model.norm.weight": changed}


def lose_a_tensor(merged: Tensors, _base: Tensors) -> Tensors:
    return {name: tensor for name, tensor in merged.items() if name != "model.norm.weight"}


def add_a_tensor(merged: Tensors, _base: Tensors) -> Tensors:
    return merged | {"model.extra.weight": torch.zeros(2)}


def change_a_shape(merged: Tensors, _base: Tensors) -> Tensors:
    return merged | {"model.norm.weight": torch.ones(COLUMNS + 1, dtype=torch.bfloat16)}


@pytest.mark.parametrize(
    ("damage", "count", "words"),
    [
        pytest.param(forget_adapter, 12, "0.00 of the adapter's change is there", id="the adapter was forgotten"),
        pytest.param(forget_one_module, 1, "layers.1.self_attn.o_proj", id="one module was forgotten"),
        pytest.param(halve_the_scale, 12, "0.50 of the adapter's change is there", id="the scale was halved"),
        pytest.param(use_another_base, 13, "not base", id="another base was used"),
        pytest.param(change_one_element, 1, "layers.0.self_attn.o_proj", id="one element is off"),
        pytest.param(change_an_untouched_tensor, 1, "the adapter does not touch it", id="a copied tensor was changed"),
        pytest.param(lose_a_tensor, 1, "is missing from the merged model", id="a tensor is missing"),
        pytest.param(add_a_tensor, 1, "is not in the base, and no adapter adds it", id="a tensor was added"),
        pytest.param(change_a_shape, 1, "has shape", id="a tensor has another shape"),
    ],
)
def test_damage_is_found_and_named(
    tmp_path: Path, damage: Callable[[Tensors, Tensors], Tensors], count: int, words: str
) -> None:
    base, adapter = base_tensors(), adapter_tensors()
    model = damage(merged_tensors(base, adapter), base)
    found = check(tmp_path, model=model, base=base, adapter=adapter)
    assert len(found.mismatched) == count
    assert any(words in problem for problem in found.problems)
    assert json.dumps(found.as_json()["mismatched"]) == str(count)


def test_a_delta_below_the_rounding_step_is_lost_without_blame(tmp_path: Path) -> None:
    base, adapter = base_tensors(), adapter_tensors(scale=1e-7)
    found = check(tmp_path, model=merged_tensors(base, adapter), base=base, adapter=adapter)
    assert found.problems == []
    assert found.retention_min is not None
    assert found.retention_min < 0.5


def test_an_adapter_for_another_model_is_refused_by_name(tmp_path: Path) -> None:
    base = base_tensors()
    adapter = {
        name: torch.cat([tensor, tensor], dim=1) if "lora_A" in name else tensor
        for name, tensor in adapter_tensors().items()
    }
    with pytest.raises(Refused, match=r"k_proj.weight has shape \[48, 32\], the adapter was made for \[48, 64\]"):
        check(tmp_path, model=base, base=base, adapter=adapter)


def test_what_cannot_be_planned_is_no_faithful_model() -> None:
    found = fidelity.impossible("the adapter was trained on another model")
    assert found.problems == ["every tensor: the adapter was trained on another model"]
    assert found.checked == 0


def factors_of(tmp_path: Path, recipe: Recipe, *, adapters: int = 1) -> list[float]:
    """coefficient · scale of each term of the first tensor."""
    base = write(tmp_path / "base", base_tensors())
    folders = [write_adapter(tmp_path / f"adapter-{number}", adapter_tensors()) for number in range(adapters)]
    step = next(step for step in expect(base, folders, recipe).plan.steps if step.name == f"{MODULES[0]}.weight")
    return [term.coefficient * term.scale for term in step.terms]


@pytest.mark.parametrize(
    ("recipe", "factor"),
    [
        pytest.param(Recipe(scale=0.5), 0.5, id="scale acts on the delta"),
        pytest.param(Recipe(weights=(2.0,)), 2.0, id="a single weight is not normalised"),
        pytest.param(
            Recipe(strategy="task_arithmetic", weights=(0.3,)), 0.3, id="task arithmetic takes the weight as given"
        ),
    ],
)
def test_the_recipe_decides_the_factor(tmp_path: Path, recipe: Recipe, factor: float) -> None:
    assert factors_of(tmp_path, recipe) == pytest.approx([factor * ALPHA / RANK])


def test_linear_normalises_the_weights_of_several_adapters(tmp_path: Path) -> None:
    assert factors_of(tmp_path, Recipe(weights=(3.0, 1.0)), adapters=2) == pytest.approx([0.75 * 2, 0.25 * 2])


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        pytest.param({"x.lora_C.weight": torch.ones(1, 1)}, {}, "the base has no x.lora_C", id="a key of another kind"),
        pytest.param(
            {"base_model.model.m.lora_A.weight": torch.ones(1, 1)}, {}, "m has lora_A but not lora_B", id="A without B"
        ),
        pytest.param(adapter_tensors(), {"use_dora": True}, "use_dora", id="DoRA without magnitudes"),
        pytest.param(adapter_tensors(), {"lora_alpha": None}, "lora_alpha", id="no alpha"),
    ],
)
def test_what_cannot_be_recomputed_is_refused(
    tmp_path: Path, tensors: Tensors, config: dict[str, object], message: str
) -> None:
    with pytest.raises(Refused, match=message):
        check(tmp_path, model=base_tensors(), base=base_tensors(), adapter=tensors, **config)


def test_a_recipe_for_another_number_of_adapters_is_refused(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", adapter_tensors())
    with pytest.raises(Refused, match="expected 2 adapters"):
        expect(write(tmp_path / "base", base_tensors()), [folder], Recipe(weights=(1.0, 1.0)))


def test_a_strategy_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="field 'strategy'"):
        Recipe(strategy="average").for_planning()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_found(tmp_path: Path, value: float) -> None:
    tensors = base_tensors()
    tensors["model.norm.weight"][3] = value
    model = Checkpoint(write(tmp_path / "model", tensors))
    assert fidelity.non_finite_tensors(model, tick=lambda _: None) == ["model.norm.weight"]


def test_several_shards_are_one_checkpoint(tmp_path: Path) -> None:
    base, adapter = base_tensors(), adapter_tensors()
    model = merged_tensors(base, adapter)
    folder = tmp_path / "model"
    folder.mkdir()
    names = sorted(model)
    for shard, part in enumerate((names[:5], names[5:])):
        save_file({name: model[name].contiguous() for name in part}, folder / f"model-{shard}.safetensors")
    adapters = [write_adapter(tmp_path / "adapter", adapter)]
    found = fidelity.check(
        model=Checkpoint(folder),
        expected=expect(write(tmp_path / "base", base), adapters, Recipe()),
        tick=lambda _: None,
    )
    assert found.problems == []

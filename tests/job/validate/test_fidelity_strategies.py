"""Fidelity of merges by every strategy: models made from the definitions in float64 pass, whatever departs from its recipe is named."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_job.digest import directory_digest
from lora_job.merge.rounding import round_once
from lora_job.validate import fidelity
from lora_job.validate.fidelity import Checkpoint, Fidelity, expect
from lora_job.validate.recipe import Recipe, parse_manifest
from tests.job.models import BASE_NAME, factors, write_adapter, write_base
from tests.job.strategies.oracle import Asked, merged
from tests.job.test_merge import tensors

pytestmark = pytest.mark.engine

ASKED = [
    Asked(strategy="linear", weights=(1.0, 0.5, 2.0)),
    Asked(strategy="task_arithmetic", weights=(1.0, -0.5, 0.7), scale=0.6),
    Asked(strategy="slerp", weights=(1.0, 0.5), t=0.3),
    Asked(strategy="ties", weights=(1.0, 0.5, 2.0), density=0.3, scale=0.9),
    Asked(strategy="dare_linear", weights=(1.0, 0.5, 2.0), density=0.4, seed=3),
    Asked(strategy="dare_ties", weights=(1.0, 0.5, 2.0), density=0.7, seed=2**62),
]
every_strategy = pytest.mark.parametrize("asked", ASKED, ids=[asked.strategy for asked in ASKED])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / BASE_NAME)


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    every = ("q_proj", "v_proj", "down_proj")
    kinds = ((4, 8, every), (2, 3, every), (8, 8, ("q_proj", "down_proj")))
    return [
        write_adapter(tmp_path / f"a{rank}", factors(rank=rank, seed=rank, modules=modules), r=rank, lora_alpha=alpha)
        for rank, alpha, modules in kinds
    ]


def recipe(asked: Asked) -> Recipe:
    """As a manifest holds it."""
    raw = {**asked.__dict__, "weights": list(asked.weights)}
    return parse_manifest({"recipe": raw}, where="merge.json").recipe


def model(base: Path, adapters: Sequence[Path], asked: Asked, target: Path) -> Path:
    """Made without the engine."""
    before = tensors(base)
    exact = merged(before, adapters, asked, digests=[directory_digest(adapter) for adapter in adapters])
    target.mkdir()
    found = before | {name: round_once(tensor, before[name].dtype) for name, tensor in exact.items()}
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, target / "model.safetensors")
    return target


def check(merged_model: Path, base: Path, adapters: Sequence[Path], asked: Asked) -> Fidelity:
    digests = [directory_digest(adapter) for adapter in adapters]
    return fidelity.check(
        model=Checkpoint(merged_model),
        expected=expect(base, adapters, recipe(asked), digests=digests),
        tick=lambda _: None,
    )


def used(adapters: Sequence[Path], asked: Asked) -> Sequence[Path]:
    return adapters[: len(asked.weights)]


@every_strategy
def test_a_correct_merge_is_not_accused(base: Path, adapters: list[Path], tmp_path: Path, asked: Asked) -> None:
    found = check(model(base, used(adapters, asked), asked, tmp_path / "model"), base, used(adapters, asked), asked)
    assert found.problems == []
    assert (found.checked, found.merged) == (10, 6)
    assert found.retention_min == pytest.approx(1, abs=0.05)


@every_strategy
def test_a_forgotten_adapter_is_found(base: Path, adapters: list[Path], tmp_path: Path, asked: Asked) -> None:
    some = used(adapters, asked)
    strategy = "linear" if asked.strategy == "slerp" else asked.strategy
    fewer = replace(asked, strategy=strategy, weights=asked.weights[1:])
    found = check(model(base, some[1:], fewer, tmp_path / "model"), base, some, asked)
    assert len(found.mismatched) == 6
    assert any("of the adapter's change is there" in problem for problem in found.problems)


@every_strategy
def test_a_halved_scale_is_found(base: Path, adapters: list[Path], tmp_path: Path, asked: Asked) -> None:
    some = used(adapters, asked)
    half = replace(asked, scale=asked.scale / 2)
    found = check(model(base, some, half, tmp_path / "model"), base, some, asked)
    assert len(found.mismatched) == 6
    assert found.retention_median == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        pytest.param(ASKED[2], {"t": 0.35}, id="slerp: another t"),
        pytest.param(ASKED[2], {"weights": (0.5, 1.0)}, id="slerp: weights exchanged"),
        pytest.param(ASKED[3], {"density": 0.35}, id="ties: another density"),
        pytest.param(ASKED[4], {"seed": 4}, id="dare: another seed"),
        pytest.param(ASKED[5], {"density": 0.65}, id="dare: another density"),
        pytest.param(ASKED[5], {"strategy": "dare_linear"}, id="dare: summed instead of elected"),
    ],
)
def test_another_number_in_the_recipe_is_found(
    base: Path, adapters: list[Path], tmp_path: Path, asked: Asked, other: dict[str, object]
) -> None:
    some = used(adapters, asked)
    made = model(base, some, replace(asked, **other), tmp_path / "model")  # type: ignore[arg-type]
    assert len(check(made, base, some, asked).mismatched) == 6


@every_strategy
def test_one_wrong_element_is_found(base: Path, adapters: list[Path], tmp_path: Path, asked: Asked) -> None:
    made = model(base, used(adapters, asked), asked, tmp_path / "model")
    content = tensors(made)
    name = "model.layers.1.mlp.down_proj.weight"
    content[name][3, 5] += torch.tensor(0.5, dtype=torch.bfloat16)
    save_file(content, made / "model.safetensors")
    found = check(made, base, used(adapters, asked), asked)
    assert [finding.tensor for finding in found.mismatched] == [name]

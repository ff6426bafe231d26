"""Every strategy on every architecture: two adapters of PEFT with other ranks and layers, merged, against the definitions in float64.

Mixtures of experts adapt their stacked experts too, whose deltas are one tensor in memory and (but for gpt_oss) many on disk: the
definitions speak of tensors on disk.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft.tuners.lora.layer import LoraLayer, ParamWrapper

from tests.job.cases import oracle
from tests.job.cases.case import Case, adapted, lora
from tests.job.cases.families import FAMILIES, load, new_model, save_base
from tests.job.strategies.oracle import Asked, Matrix, combined
from tests.job.strategies.test_merge_strategies import STRATEGIES, digests, merge

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
# Names on disk of what is one parameter in memory: (gate, up), down; None where disk and memory are alike.
ON_DISK: dict[str, tuple[str, str, str] | None] = {
    "mixtral": ("w1", "w3", "w2"),
    "qwen2_moe": ("gate_proj", "up_proj", "down_proj"),
    "qwen3_moe": ("gate_proj", "up_proj", "down_proj"),
    "gpt_oss": None,
}
WEIGHTS = (1.0, 0.4)


@dataclass(frozen=True, kw_only=True)
class Two:
    """A base and two adapters of it, with their deltas by tensor on disk."""

    family: str
    base: Path
    adapters: tuple[Path, Path]
    deltas: tuple[dict[str, Matrix], dict[str, Matrix]]

    def exact(self, asked: Asked, *, digests: list[str]) -> oracle.Tensors:
        """W + Δ of every tensor that one of them changes."""
        before, found = oracle.read(self.base), {}
        for name in self.deltas[0].keys() | self.deltas[1].keys():
            zeros = np.zeros(before[name].shape)
            every = [one.get(name, zeros) for one in self.deltas]
            delta = combined(name, every, asked, digests=digests)
            found[name] = before[name].double() + torch.from_numpy(np.asarray(delta))
        return found


def split(family: str, name: str, delta: torch.Tensor) -> dict[str, Matrix]:
    """The delta of a parameter in memory by the tensors it is on disk."""
    names = ON_DISK.get(family)
    if names is None:
        return {name: delta.numpy()}
    owner, _, parameter = FAMILIES[family].on_disk(name).rpartition(".")
    halves = [(names[0], 0, 2), (names[1], 1, 2)] if parameter == "gate_up_proj" else [(names[2], 0, 1)]
    return {
        f"{owner}.{expert}.{part}.weight": matrix.chunk(count)[place].numpy()
        for expert, matrix in enumerate(delta)
        for part, place, count in halves
    }


def deltas_of(family: str, live: Any) -> dict[str, Matrix]:
    found: dict[str, Matrix] = {}
    for name, module in live.base_model.model.named_modules():
        if isinstance(module, ParamWrapper):
            owner = name.removesuffix(".base_layer")
            found |= split(family, f"{owner}.{module.parameter_name}", oracle.experts_delta(module))
        elif isinstance(module, LoraLayer):
            found[f"{FAMILIES[family].on_disk(name)}.weight"] = oracle.delta_of(module).numpy()
    return found


@pytest.fixture(scope="module", params=FAMILIES)
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Two:
    """The second adapter has half of the rank and lacks some layers."""
    family: str = request.param
    root = tmp_path_factory.mktemp(family)
    kind = type(
        save_base(new_model(family, kind=transformers.AutoModelForCausalLM), root / "tiny-base", dtype=torch.bfloat16)
    )
    targets = FAMILIES[family].targets
    stacked = {"target_parameters": EXPERTS} if family in ON_DISK else {}
    configs: list[dict[str, Any]] = [
        {**stacked},
        {"r": 2, "lora_alpha": 5, "target_modules": list(targets[1:]), **stacked},
    ]
    lives = [
        adapted(load(root / "tiny-base", kind=kind), lora(family, config), folder=root / f"a{number}", seed=number)
        for number, config in enumerate(configs)
    ]
    first, second = (deltas_of(family, live) for live in lives)
    return Two(family=family, base=root / "tiny-base", adapters=(root / "a0", root / "a1"), deltas=(first, second))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_merged_tensors_are_the_definition_rounded_once(two: Two, strategy: str, tmp_path: Path) -> None:
    asked = Asked(strategy=strategy, weights=WEIGHTS, scale=0.9, t=0.3, density=0.4, seed=11)
    output = tmp_path / "out"
    assert merge(two.base, two.adapters, output, asked) == 0
    case = Case(family=two.family, live=None, kind=None, base=two.base, adapter=two.adapters[0], output=output)
    case.check_tensors(two.exact(asked, digests=digests(output)))
    if two.family in ON_DISK:
        assert any("experts" in name for name in two.deltas[0])

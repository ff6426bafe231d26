"""Mixtures of experts: one tensor per expert on disk or one for all, adapted one by one or as a stacked parameter."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.job.cases import oracle
from tests.job.cases.case import Case, make, merge
from tests.job.cases.families import FAMILIES, load

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
FUSED = ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"]


def in_memory(case: Case, folder: Path) -> dict[str, torch.Tensor]:
    """Parameters by their names in memory, as transformers loads a folder."""
    return {name: parameter.detach() for name, parameter in load(folder, kind=case.kind).named_parameters()}


def check_experts(case: Case) -> None:
    """Stacked parameters hold W + Δ, every tensor on disk keeps its name, shape and dtype."""
    ours, wanted = in_memory(case, case.output), oracle.experts(case.live)
    assert wanted
    for name, exact in wanted.items():
        assert torch.allclose(ours[name].double(), exact, rtol=1e-6, atol=1e-7), name
    base, found = oracle.read(case.base), oracle.read(case.output)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in base.items()
    }


@pytest.mark.parametrize(
    "parameters", [BOTH, BOTH[:1], BOTH[1:], BOTH[::-1]], ids=["both", "gate_up", "down", "reversed"]
)
@pytest.mark.parametrize("family", FUSED)
def test_stacked_experts(tmp_path: Path, family: str, parameters: list[str]) -> None:
    config = {"target_modules": ["q_proj"], "target_parameters": parameters}
    case = make(tmp_path, family, config, sharded=parameters == BOTH)
    check_experts(case)
    case.check_logits()


def test_the_scale_of_stacked_experts_is_by_the_rank_of_one(tmp_path: Path) -> None:
    config = {
        "target_modules": ["q_proj"],
        "target_parameters": BOTH,
        "use_rslora": True,
        "rank_pattern": {r".*\.gate_up_proj": 8},
        "alpha_pattern": {r".*\.gate_up_proj": 12},
    }
    case = make(tmp_path, "qwen3_moe", config)
    check_experts(case)
    plan = json.loads((case.output / "merge.json").read_text())
    assert plan["tensors"]["merged"] == 2 * (4 * 3 + 1)


def test_all_linear_layers_of_mixtral(tmp_path: Path) -> None:
    case = make(tmp_path, "mixtral", {"target_modules": "all-linear"})
    config = json.loads((case.adapter / "adapter_config.json").read_text())
    assert config["rank_pattern"], "PEFT stores gate and up with twice the rank"
    check_experts(case)
    case.check_logits()


def per_expert_adapter(case: Case, *, modules: dict[str, tuple[int, int]]) -> oracle.Tensors:
    """Factors of single experts as older versions saved them; returns their W + Δ by name on disk."""
    draw = torch.Generator().manual_seed(3)
    factors, exact = {}, {}
    base = oracle.read(case.base)
    for module, (rows, columns) in modules.items():
        a, b = torch.randn(4, columns, generator=draw) * 0.2, torch.randn(rows, 4, generator=draw) * 0.2
        factors[f"base_model.model.{module}.lora_A.weight"] = a
        factors[f"base_model.model.{module}.lora_B.weight"] = b
        exact[f"{module}.weight"] = base[f"{module}.weight"].double() + 6 / math.sqrt(4) * (b.double() @ a.double())
    save_file(factors, case.adapter / "adapter_model.safetensors")
    return exact


@pytest.mark.parametrize(
    ("family", "stem", "names"),
    [
        ("qwen2_moe", "model.layers.{}.mlp.experts.{}", ("gate_proj", "up_proj", "down_proj")),
        ("mixtral", "model.layers.{}.block_sparse_moe.experts.{}", ("w1", "w3", "w2")),
    ],
)
def test_experts_that_were_adapted_one_by_one(
    tmp_path: Path, family: str, stem: str, names: tuple[str, str, str]
) -> None:
    case = make(tmp_path, family, {"use_rslora": True})
    base = oracle.read(case.base)
    modules = {
        module: tuple(base[f"{module}.weight"].shape)
        for layer in range(2)
        for expert in range(4)
        for name in names
        for module in [f"{stem.format(layer, expert)}.{name}"]
    }
    wanted = per_expert_adapter(case, modules=modules)  # type: ignore[arg-type]
    again = Case(**{**vars(case), "output": tmp_path / "again"})
    assert merge(again) == 0
    again.check_tensors(wanted)


def older(case: Case, *, version: str) -> None:
    """Rewrites a stacked adapter as PEFT below 0.19 stored it: in and out are the parameter's second and third dimension."""
    tensors = oracle.read(case.adapter)
    for name in [name for name in tensors if ".experts." in name and "lora_A" in name]:
        other = name.replace("lora_A", "lora_B")
        a, b = tensors[name], tensors[other]
        rank = a.shape[0] // 4
        tensors[name] = b.reshape(b.shape[0], rank, 4).permute(2, 1, 0).reshape(4 * rank, -1).contiguous()
        tensors[other] = a.reshape(4, rank, -1).permute(2, 1, 0).reshape(a.shape[1], -1).contiguous()
    save_file(tensors, case.adapter / "adapter_model.safetensors")
    edit(case, peft_version=version)


def edit(case: Case, **changes: Any) -> None:
    path = case.adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_older_versions_swapped_in_and_out(tmp_path: Path) -> None:
    case = make(tmp_path, "qwen3_moe", {"target_modules": ["q_proj"], "target_parameters": BOTH})
    older(case, version="0.18.1")
    again = Case(**{**vars(case), "output": tmp_path / "again"})
    assert merge(again) == 0
    ours, theirs = oracle.read(again.output), oracle.read(case.output)
    assert all(torch.allclose(tensor, theirs[name], atol=1e-6) for name, tensor in ours.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_version": None}, "peft_version"),
        ({"peft_version": "0.18.1"}, "needs [16, 48]"),
        ({"target_parameters": []}, "target_parameters"),
    ],
    ids=["a version nobody knows", "a version that stored them otherwise", "one of two, and not said which"],
)
def test_a_layout_that_is_not_known_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    case = make(tmp_path, "qwen3_moe", {"target_modules": ["q_proj"], "target_parameters": BOTH[:1]})
    edit(case, **changes)
    assert merge(Case(**{**vars(case), "output": tmp_path / "again"})) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3_moe", "gpt_oss"])
def test_routers_are_linear_layers(tmp_path: Path, family: str) -> None:
    router = "router" if family == "gpt_oss" else "mlp.gate"
    case = make(tmp_path, family, {"target_modules": ["q_proj"], "target_parameters": [f"{router}.weight"]})
    found, base = oracle.read(case.output), oracle.read(case.base)
    changed = {name for name, tensor in found.items() if not torch.equal(tensor, base[name])}
    assert any(f"{router}.weight" in name for name in changed)
    assert FAMILIES[family].on_disk("x") == "x"
    case.check_logits()

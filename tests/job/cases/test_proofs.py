"""Every operation is guarded twice: before publishing by the verifier, afterwards by the fidelity gate, which reads only the files."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lora_job.hashing import Hasher
from lora_job.merge.build_context import BuildContext
from lora_job.merge.build_plan import build_plan
from lora_job.merge.engine import Writer
from lora_job.merge.factors import Deltas
from lora_job.merge.layout import layout_of
from lora_job.merge.plan import Operation, Plan
from lora_job.merge.recipe import Recipe
from lora_job.merge.stream import OpenFiles
from lora_job.merge.verify import ShardProof, Verifier, chosen_sample
from lora_job.merge.writeback import Writeback
from lora_job.model_config import read_config
from lora_job.outcome import Infrastructure
from lora_job.validate import fidelity
from lora_job.validate.recipe import Recipe as Claimed
from tests.job.cases import oracle
from tests.job.cases.case import Case, make

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
EXPERTS = {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
OPERATIONS: list[Any] = [
    ("llama", {}, {}, Operation.LORA, "v_proj.weight"),
    ("llama", {}, {}, Operation.COPY, "model.norm.weight"),
    ("llama", {"use_dora": True}, {}, Operation.DORA, "v_proj.weight"),
    ("gpt2", {"use_dora": True, "fan_in_fan_out": True}, {}, Operation.DORA, "c_attn.weight"),
    ("llama", {"trainable_token_indices": [3, 9]}, {}, Operation.ROWS, "embed_tokens.weight"),
    ("llama", {"modules_to_save": ["lm_head"]}, {}, Operation.REPLACE, "lm_head.weight"),
    ("qwen3", {"target_modules": ["embed_tokens"]}, {"tie_word_embeddings": True}, Operation.UNTIE, "lm_head.weight"),
    ("phi", {"lora_bias": True}, {}, Operation.LORA, "fc1.bias"),
    ("qwen3_moe", EXPERTS, {}, Operation.LORA, "experts.3.up_proj.weight"),
    ("gpt_oss", EXPERTS, {}, Operation.LORA, "experts.down_proj"),
]


@pytest.fixture(params=OPERATIONS, ids=[f"{row[3]} {row[4]} of {row[0]}" for row in OPERATIONS])
def found(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Case, str]:
    """A merged model and one of its tensors, by the operation that made it."""
    family, config, settings, operation, ending = request.param
    case = make(tmp_path, family, config, dtype=torch.bfloat16, **settings)
    step = next(
        step
        for step in fidelity.expect(case.base, [case.adapter], Claimed()).plan.steps
        if step.name.endswith(ending) and step.operation is operation
    )
    return case, step.name


def change_one_number(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.clone().reshape(-1)
    flat[len(flat) // 2] += 1
    return flat.reshape(tensor.shape)


def to_zero(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tensor)


DAMAGES = pytest.mark.parametrize("damage", [change_one_number, to_zero], ids=["one number changed", "all lost"])


def gate(case: Case, model: Path) -> fidelity.Fidelity:
    expected = fidelity.expect(case.base, [case.adapter], Claimed())
    return fidelity.check(model=fidelity.Checkpoint(model), expected=expected, tick=lambda _: None)


@DAMAGES
def test_the_fidelity_gate_passes_the_merge_and_names_a_damaged_tensor(
    found: tuple[Case, str], tmp_path: Path, damage: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    case, name = found
    assert gate(case, case.output).problems == []
    damaged = Path(shutil.copytree(case.output, tmp_path / "damaged"))
    tensors = oracle.read(damaged)
    tensors[name] = damage(tensors[name])
    save_file(tensors, damaged / "model.safetensors")
    assert [finding.tensor for finding in gate(case, damaged).mismatched] == [name]


def verified(case: Case, target: Path, *, damage: Callable[[bytearray, Plan], None]) -> ShardProof:
    """Written, then damaged on the disk, then verified."""
    expected = fidelity.expect(case.base, [case.adapter], Claimed())
    plan = build_plan(base=expected.base, config=read_config(case.base), adapters=expected.adapters, recipe=Recipe())
    (shard,) = plan.shards
    target.write_bytes(layout_of(shard, expected.base.shards[shard.file]).head)
    with OpenFiles() as files, Hasher(threads=1) as hasher, Writeback() as writeback:
        deltas = Deltas(expected.adapters, files=files)
        build = BuildContext(base=expected.base, deltas=deltas, workers=1, hasher=hasher, writeback=writeback)
        figures = Writer(build).write(shard, target=target)
        data = bytearray(target.read_bytes())
        damage(data, plan)
        target.write_bytes(data)
        verifier = Verifier(build, sample=chosen_sample(plan), seed=1, tick=lambda _: None)
        return verifier.verify(shard, target=target, figures=figures)


def test_the_verifier_passes_what_was_written_and_names_what_changed_on_the_disk(
    found: tuple[Case, str], tmp_path: Path
) -> None:
    case, name = found
    proof = verified(case, tmp_path / "whole.safetensors", damage=lambda _data, _plan: None)
    assert proof.max_ulp <= 1

    def flip(data: bytearray, plan: Plan) -> None:
        """The upper byte of the middle number of the tensor: another exponent."""
        end = len(data)
        for step in reversed(plan.shards[0].steps):
            end -= step.size
            if step.name == name:
                data[end + step.size // 2 // 2 * 2 + 1] ^= 0x04

    with pytest.raises(Infrastructure, match=name):
        verified(case, tmp_path / "flipped.safetensors", damage=flip)


@pytest.mark.parametrize(
    ("count", "wrong"), [(0, False), (12, True)], ids=["as merged", "twelve numbers off by one unit"]
)
def test_more_roundings_than_chance_explains_are_an_error(tmp_path: Path, count: int, wrong: bool) -> None:
    """Each is within a unit in the last place, and norm and projection do not see them: only their number tells."""
    case = make(tmp_path, "llama", {}, dtype=torch.bfloat16)
    name = "model.layers.0.self_attn.q_proj.weight"

    def off_by_one(data: bytearray, plan: Plan) -> None:
        end = len(data)
        for step in reversed(plan.shards[0].steps):
            end -= step.size
            if step.name == name:
                for place in range(count):
                    data[end + 2 * (7 * place + 3)] ^= 0x01

    if not wrong:
        assert verified(case, tmp_path / "model.safetensors", damage=off_by_one).mismatched <= 2
        return
    with pytest.raises(Infrastructure, match=rf"{name}: 1\d of \d+ sampled elements differ"):
        verified(case, tmp_path / "model.safetensors", damage=off_by_one)

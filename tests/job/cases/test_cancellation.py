"""Where W and Δ cancel, what is left is within a unit in the last place all the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_job.cli import run
from lora_job.merge.blocks import fresh
from lora_job.merge.dense import Dense
from lora_job.merge.factors import Factors, LowRank, Stacked, least_certain
from lora_job.merge.operations.cancellation import Cancellation
from lora_job.merge.operations.lora import Lora
from lora_job.merge.rounding import round_once, ulp_distance
from lora_job.merge.stored_numbers import Bytes
from tests.job.models import BASE_NAME, write_adapter, write_wide_adapter, write_wide_base

pytestmark = pytest.mark.engine
ROWS, COLUMNS, RANK = 96, 256, 16
NAMES = {torch.bfloat16: "BF16", torch.float16: "F16"}
THIRD = 1 / 3  # a scale that float32 does not hold: the factors are rounded too


class Stored:
    """A tensor that is read by rows."""

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values
        self.columns, self.dtype = values.shape[1], NAMES[values.dtype]

    def data(self, start: int, end: int) -> Bytes:
        found: Bytes = self._values[start:end].reshape(-1).view(torch.uint8).numpy()
        return found


def exact_factors(*, stacked: bool) -> Factors:
    random = torch.Generator().manual_seed(4)
    shape = (3, ROWS // 3, RANK) if stacked else (ROWS, RANK)
    left = torch.randn(shape, generator=random, dtype=torch.float64) * THIRD
    right = torch.randn((*shape[:-2], RANK, COLUMNS), generator=random, dtype=torch.float64).float().double()
    kind = Stacked if stacked else LowRank
    return kind(left=left.numpy(), right=right.numpy())


def merged(stored: torch.Tensor, exact: Factors, *, height: int, mends: bool) -> torch.Tensor:
    """By chunks of `height` rows, not rounded yet."""
    delta = exact.in_float32()
    least = least_certain(delta, dtype=NAMES[stored.dtype])
    rows: Any = Stored(stored)
    mending = Cancellation(least, exact=lambda: exact) if mends else None
    lora = Lora(rows, delta=Dense(delta), dtype=torch.float32, take=fresh, cancellation=mending)
    places = [(start, min(ROWS, start + height)) for start in range(0, ROWS, height)]
    return torch.cat([lora.rows(start, end).after.clone() for start, end in places])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("stacked", [False, True], ids=["one matrix", "stacked experts"])
def test_what_is_left_of_a_cancellation_is_within_a_unit_in_the_last_place(dtype: torch.dtype, stacked: bool) -> None:
    factors = exact_factors(stacked=stacked)
    delta = torch.from_numpy(factors.rows(0, ROWS))
    stored = (-delta).to(dtype)
    wanted = round_once(stored.double() + delta, dtype)
    plain = merged(stored, factors, height=40, mends=False).to(dtype)
    assert int(ulp_distance(plain, wanted).max()) > 1, "float32 alone must not be enough, or this test shows nothing"
    for height in (40, 96, 7):
        assert int(ulp_distance(merged(stored, factors, height=height, mends=True).to(dtype), wanted).max()) <= 1


def test_hardly_anything_of_ordinary_weights_is_calculated_again() -> None:
    factors = exact_factors(stacked=False)
    stored = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(6)).mul(20).bfloat16()
    changed = merged(stored, factors, height=96, mends=True) != merged(stored, factors, height=96, mends=False)
    assert float(changed.double().mean()) < 0.002


def test_a_delta_of_zeros_is_not_looked_at() -> None:
    factors = LowRank(left=np.zeros((ROWS, RANK)), right=np.ones((RANK, COLUMNS)))
    stored = torch.zeros(ROWS, COLUMNS, dtype=torch.bfloat16)

    def never() -> Factors:
        raise AssertionError("nothing has to be calculated again")

    cancellation = Cancellation(least_certain(factors.in_float32(), dtype="BF16"), exact=never)
    cancellation.mend(stored.float(), before=stored, start=0)


def test_a_base_that_cancels_its_adapter_here_and_there_is_merged_and_verified(tmp_path: Path) -> None:
    """The verification of such a merge refused it before these elements were calculated again."""
    base, adapter = write_wide_base(tmp_path / BASE_NAME, layers=2), write_wide_adapter(tmp_path / "adapter", layers=2)
    factors, weights = load_file(adapter / "adapter_model.safetensors"), load_file(base / "model.safetensors")
    for name in weights:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        b, a = (factors[f"{stem}.lora_{side}.weight"].double() for side in "BA")
        weights[name][:, ::512] = (-2 * b @ a)[:, ::512].bfloat16()
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    write_adapter(adapter, factors)
    command = ["merge", "--base", str(base), "--adapter", str(adapter), "--output", str(tmp_path / "merged")]
    assert run(command) == 0
    verification = json.loads((tmp_path / "merged" / "merge.json").read_text())["verification"]
    assert verification["maxUlp"] <= 1

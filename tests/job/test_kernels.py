"""The compiled kernels against float64 and against torch, for each generation of processors that this machine can play."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lora_job.cli import run
from lora_job.kernels import rows as kernels
from lora_job.kernels.build import GENERATIONS, library
from lora_job.merge.factors import Factors, LowRank, Stacked, least_certain
from lora_job.merge.rounding import round_once, ulp_distance
from lora_job.merge.sampled import ALLOWED_SHARE
from lora_job.merge.stored_numbers import Bits
from tests.job.models import BASE_NAME, write_wide_adapter, write_wide_base
from tests.job.test_merge import differing, exact, tensors

pytestmark = pytest.mark.engine

USABLE = kernels.usable()
NAMES = {torch.bfloat16: "BF16", torch.float16: "F16"}
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
KERNELS = pytest.mark.parametrize("compiled", [kernels.Kernels(library(one)) for one in USABLE], ids=USABLE)
# Rows, columns, rank: whole tiles, tails of every kind, one of each, more of each than a tile or a panel holds.
SHAPES = [
    (8, 128, 16),
    (1, 1, 1),
    (3, 15, 2),
    (5, 17, 3),
    (4, 63, 8),
    (7, 65, 16),
    (13, 200, 33),
    (6, 700, 64),
    (2, 90, 600),
]


def halves(values: torch.Tensor) -> Bits:
    """The same memory as kernels take it."""
    found: Bits = values.view(torch.int16).numpy().view(np.uint16)
    return found


class Problem:
    """Weights and factors, as the engine prepares them."""

    def __init__(self, rows: int, columns: int, rank: int, *, dtype: torch.dtype, cancels: bool = False) -> None:
        random = torch.Generator().manual_seed(rows * 1_000 + columns)
        self.left = torch.randn(rows, rank, generator=random, dtype=torch.float64) / (3 * rank**0.5)
        self.right = torch.randn(rank, columns, generator=random, dtype=torch.float64) / 3
        self.delta = self.left @ self.right
        drawn = torch.randn(rows, columns, generator=random, dtype=torch.float64)
        self.stored = (-self.delta if cancels else drawn).to(dtype)
        self.wanted = round_once(self.stored.double() + self.delta, dtype)
        self.result = torch.full((rows, columns), 9.0, dtype=dtype)
        self.dtype = NAMES[dtype]
        factors = LowRank(left=self.left.float().numpy(), right=self.right.float().numpy())
        self.least = least_certain(factors, dtype=self.dtype)

    def merge(self, compiled: kernels.Kernels, start: int = 0, end: int | None = None) -> kernels.Merged:
        here = slice(start, end)
        return compiled.merge(
            halves(self.stored[here]),
            dtype=self.dtype,
            left=self.left[here].float().numpy(),
            right=self.right.float().numpy(),
            exact_left=self.left[here].numpy(),
            exact_right=self.right.numpy(),
            least=self.least[here],
            result=halves(self.result[here]),
        )


def test_this_machine_uses_the_best_library_that_its_processor_runs() -> None:
    assert set(USABLE) >= {"x86_64_v3"}, "without compiled kernels nothing here tells whether they are right"
    assert list(USABLE) == [one for one in GENERATIONS if one in USABLE], "the best one comes first"
    assert kernels.find() is not None


@KERNELS
@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_sum_is_rounded_as_float64_would_but_for_few(
    compiled: kernels.Kernels, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    problem = Problem(*shape, dtype=dtype)
    found = problem.merge(compiled)
    distance = ulp_distance(problem.result, problem.wanted)
    assert int(distance.max()) <= 1
    # Errors of the sum in float32 decide where the exact one is as close to a tie as that: one in some thousands.
    assert int((distance > 0).sum()) <= max(1, 0.004 * distance.numel())
    lost = (problem.stored.double() + problem.delta - problem.result.double()).square().sum()
    assert found.lost == pytest.approx(float(lost), rel=2e-3, abs=1e-12)  # as exact as float32 knows W + Δ
    assert found.moved == bool((problem.result != problem.stored).any())


@KERNELS
@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_cancels_is_rounded_from_the_sum_in_float64(
    compiled: kernels.Kernels, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    problem = Problem(*shape, dtype=dtype, cancels=True)
    problem.merge(compiled)
    small = (problem.stored.double() + problem.delta).abs() < torch.from_numpy(problem.least).unsqueeze(1).double() / 2
    assert bool(torch.equal(problem.result[small], problem.wanted[small]))
    assert int(ulp_distance(problem.result, problem.wanted).max()) <= 1


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_processor_and_every_division_into_chunks_give_the_same_bits(
    dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    problem, found = Problem(*shape, dtype=dtype), []
    for compiled in [kernels.Kernels(library(one)) for one in USABLE]:
        for step in (shape[0], 1, 3):
            problem.result.fill_(9.0)
            for start, end in pairwise([*range(0, shape[0], step), shape[0]]):
                problem.merge(compiled, start, end)
            found.append(problem.result.view(torch.int16).clone())
    assert all(torch.equal(found[0], other) for other in found)


@KERNELS
@DTYPES
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [(0, 0), (4, 16), (6, 64)])
def test_what_is_not_finite_is_told_by_the_sum_of_what_was_lost(
    compiled: kernels.Kernels, dtype: torch.dtype, bad: float, place: tuple[int, int]
) -> None:
    problem = Problem(7, 65, 16, dtype=dtype)
    problem.stored[place] = bad
    assert not problem.merge(compiled).lost < float("inf")


@KERNELS
def test_a_float16_that_overflows_is_told_too(compiled: kernels.Kernels) -> None:
    problem = Problem(7, 65, 16, dtype=torch.float16)
    problem.stored[6, 64], problem.left[6], problem.right[:, 64] = 65504.0, 40.0, 40.0
    assert not problem.merge(compiled).lost < float("inf")


@KERNELS
@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_comparison_is_the_sums_of_float64(
    compiled: kernels.Kernels, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    rows, columns, _rank = shape
    random = torch.Generator().manual_seed(columns)
    before, after = (torch.randn(rows, columns, generator=random).to(dtype) for _ in range(2))
    along = torch.randint(0, 2, (columns,), generator=random).float().mul_(2).sub_(1)
    found = compiled.compare(halves(before), halves(after), dtype=NAMES[dtype], along=along.numpy())
    change = after.double() - before.double()
    assert found.magnitude == pytest.approx(float(after.double().square().sum()), rel=1e-5)
    assert found.moved == pytest.approx(float(change.square().sum()), rel=1e-5)
    assert torch.allclose(
        torch.from_numpy(found.projected), change @ along.double(), rtol=1e-5, atol=1e-5 * columns**0.5
    )


def test_a_wrong_shape_does_not_get_into_compiled_code() -> None:
    compiled, problem = kernels.Kernels(library(USABLE[0])), Problem(8, 128, 16, dtype=torch.bfloat16)
    problem.result = problem.result[:, :64]
    with pytest.raises(AssertionError, match="expected contiguous"):
        problem.merge(compiled)
    with pytest.raises(AssertionError, match="expected contiguous"):
        compiled.compare(halves(problem.stored), halves(problem.stored), dtype="BF16", along=np.ones(127, np.float32))


@pytest.mark.parametrize("stacked", [False, True], ids=["one matrix", "stacked experts"])
def test_rows_of_experts_are_merged_with_their_own_factors(stacked: bool) -> None:
    left, right = torch.randn(3, 4, 2).numpy(), torch.randn(3, 2, 7).numpy()
    delta: Factors = Stacked(left=left, right=right) if stacked else LowRank(left=left[0], right=right[0])
    parts = list(delta.parts(1, 4 if not stacked else 11))
    assert np.array_equal(
        np.concatenate([part.factors.left[part.first : part.last] @ part.factors.right for part in parts]),
        delta.rows(1, 4 if not stacked else 11),
    )
    assert [part.place for part in parts] == ([0] if not stacked else [0, 3, 7])


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def sources(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A base in 16 bits and an adapter, large enough for several chunks."""
    base, adapter = write_wide_base(tmp_path / BASE_NAME, layers=2), write_wide_adapter(tmp_path / "adapter", layers=2)
    stored = {name: values.to(request.param) for name, values in tensors(base).items()}
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    return base, adapter


def merged(sources: tuple[Path, Path], output: Path) -> dict[str, Any]:
    """Its manifest."""
    base, adapter = sources
    assert run(["merge", "--base", str(base), "--adapter", str(adapter), "--output", str(output)]) == 0
    found: dict[str, Any] = json.loads((output / "merge.json").read_text())
    return found


def test_without_them_a_merge_is_right_too(
    sources: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine torch does the same work; last bits may differ, and every bound holds."""
    ours = merged(sources, tmp_path / "compiled")
    monkeypatch.setattr(kernels, "find", lambda: None)
    theirs = merged(sources, tmp_path / "torch")
    wanted, old = exact(*sources, scale=2.0), tensors(sources[0])
    for name in ("compiled", "torch"):
        for tensor, values in tensors(tmp_path / name).items():
            allowed = ALLOWED_SHARE["BF16" if values.dtype is torch.bfloat16 else "F16"]
            assert differing(values, wanted[tensor], old=old[tensor]) <= allowed
    assert ours["buildHash"] == theirs["buildHash"]
    for tensor, kept in ours["deltaRetention"]["tensors"].items():
        assert kept == pytest.approx(theirs["deltaRetention"]["tensors"][tensor], abs=1e-4)


@pytest.mark.parametrize("side", ["checks", "rounded_sum"])
def test_what_one_of_them_wrote_the_other_finds_right(
    sources: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """Merged by compiled code and verified by torch, and the reverse."""
    without = SimpleNamespace(find=lambda: None, HALVES=kernels.HALVES)
    monkeypatch.setattr(f"lora_job.merge.{side}.kernels", without)
    assert merged(sources, tmp_path / "out")["verification"]["maxUlp"] <= 1

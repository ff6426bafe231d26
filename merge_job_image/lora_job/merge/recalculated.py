"""Verification by torch.

other calculations     ‖W' − float64‖ over the whole tensor is what the rounding lost, no more
quantized layers       read back and compared with float64 (encoded.py)
W + low-rank Δ         sums for checks.py and rows for sampled.py, where those cannot do without
"""

from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import torch

from lora_job.kernels.rows import Moved
from lora_job.merge.checks import SUM_NOISE, Check, wrong
from lora_job.merge.encoded import Comparison, StoredLayer, compare_encoded, too_far
from lora_job.merge.factors import Deltas
from lora_job.merge.figures import StepFigures
from lora_job.merge.operations import Calculation, calculate
from lora_job.merge.plan import Step
from lora_job.merge.rounding import TORCH, round_once
from lora_job.merge.stored_numbers import Bytes, Exact
from lora_job.merge.strategies.combined import blocks
from lora_job.merge.strategies.oracle import TrimProof, load_oracle
from lora_job.merge.stream import Reader, Sources, matrix_shape
from lora_job.merge.torch_rows import read_rows

__all__ = ["compare", "exact_rows", "read_back", "recalculation_of"]

BLOCK_ELEMENTS = 2**16
"""256 KiB of float32: what a check calculates from stays in a core's cache."""


def recalculation_of(step: Step, *, sources: Sources, deltas: Deltas) -> Check:
    """The check of a step that is neither a copy nor a sum of low rank."""
    trims = TrimProof()
    exact = partial(calculate, step, sources=sources, deltas=deltas, dtype=torch.float64, load=trims.load)
    return _Recalculated(step, exact, trims=trims) if step.terms else _SameNumbers(step, exact())


def compare(reader: Reader, new: Bytes, start: int, end: int, *, dtype: str, along: npt.NDArray[np.float32]) -> Moved:
    """What some rows, `new` in `dtype`, are beside the `reader`'s; `along` is the x of the projection, [columns]."""
    before, signs = read_rows(reader, start, end), torch.from_numpy(along)
    after = _numbers(new, dtype).view(before.shape)
    magnitude = moved = 0.0
    projected = []
    for first, last in blocks(0, end - start, columns=reader.columns, elements=BLOCK_ELEMENTS):
        change = after[first:last].to(torch.float32, copy=True)
        magnitude += _square(change)
        change.sub_(before[first:last])
        moved += _square(change)
        projected.append((change @ signs).double().numpy())
    return Moved(magnitude=magnitude, moved=moved, projected=np.concatenate(projected))


def exact_rows(step: Step, *, sources: Sources, deltas: Deltas) -> Callable[[int, int], tuple[Exact, Exact]]:
    """Asked for rows, W and the result in float64, by a calculation that the merge does not use."""
    exact = calculate(step, sources=sources, deltas=deltas, dtype=torch.float64, load=load_oracle)

    def rows(start: int, end: int) -> tuple[Exact, Exact]:
        found = exact.rows(start, end)
        if found.before is None:
            raise AssertionError("only calculated tensors are sampled")
        return found.before.double().numpy(), found.after.numpy()

    return rows


def read_back(
    step: Step, layer: StoredLayer, *, sources: Sources, deltas: Deltas, tick: Callable[[int], None]
) -> Comparison:
    """A quantized layer beside float64; raises where it is too far away."""
    trims = TrimProof()
    exact = calculate(step, sources=sources, deltas=deltas, dtype=torch.float64, load=trims.load)
    found = compare_encoded(step, layer, exact, tick=tick)
    problem = too_far(step, found) or trims.problem()
    if problem:
        raise wrong(step, problem)
    return found


class _SameNumbers:
    """The origin's numbers, or an adapter's, rounded once: nothing was calculated."""

    def __init__(self, step: Step, exact: Calculation) -> None:
        self._step, self._exact = step, exact

    def look(self, new: Bytes, start: int, end: int) -> None:
        found = _numbers(new, self._step.dtype)
        expected = round_once(self._exact.rows(start, end).after.double(), found.dtype)
        if not torch.equal(expected.view(-1), found):
            raise wrong(self._step, f"rows {start} to {end} are not the source's in {self._step.dtype}")

    def judge(self, figures: StepFigures | None) -> None:
        pass


class _Recalculated:
    """All of it in float64 once more."""

    def __init__(self, step: Step, exact: Callable[[], Calculation], *, trims: TrimProof) -> None:
        self._step, self._load, self._trims = step, exact, trims
        self._columns = matrix_shape(step.shape)[1]
        self._residual = 0.0

    @cached_property
    def _exact(self) -> Calculation:
        """Not before rows are there: the writer has let go of its own float64 factors by then."""
        return self._load()

    def look(self, new: Bytes, start: int, end: int) -> None:
        found = _numbers(new, self._step.dtype).view(end - start, self._columns)
        for first, last in blocks(start, end, columns=self._columns):
            exact = self._exact.rows(first, last).after
            self._residual += float(exact.sub_(found[first - start : last - start]).square_().sum())

    def judge(self, figures: StepFigures | None) -> None:
        if figures is None:
            raise wrong(self._step, "it was not recorded as merged")
        problem = self._trims.problem()
        if problem:
            raise wrong(self._step, problem)
        allowed = figures.lost * (1 + SUM_NOISE) + SUM_NOISE * figures.delta
        # NaN compares false with everything, so the question is whether it fits, not whether it does not.
        if not self._residual**0.5 <= allowed:
            raise wrong(
                self._step, f"it is {self._residual**0.5:.6g} away from float64, expected at most {allowed:.6g}"
            )


def _numbers(data: Bytes, dtype: str) -> torch.Tensor:
    return torch.from_numpy(data).view(TORCH[dtype])


def _square(values: torch.Tensor) -> float:
    flat = values.reshape(-1)
    return float(torch.dot(flat, flat))

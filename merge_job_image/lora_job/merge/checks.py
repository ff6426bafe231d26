"""Does a written tensor hold what its step says? One check per kind of operation, fed with rows of the file that was written.

whole tensors, rows    the very bytes: nothing is calculated, so nothing may differ
W + low-rank Δ         finite; ‖W'−W‖ fits ‖Δ‖; a random projection (W'−W)x agrees with Δx, without a dense Δ
other calculations     ‖W' − float64‖ over the whole tensor is what the rounding lost, no more
"""

import math
import re
from collections.abc import Callable
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import torch

from lora_job.merge import kernels
from lora_job.merge.factors import Deltas
from lora_job.merge.figures import StepFigures
from lora_job.merge.operations import Calculation, calculate
from lora_job.merge.plan import Operation, Step
from lora_job.merge.rounded_sum import HALVES
from lora_job.merge.rounding import TORCH, round_once
from lora_job.merge.strategies.combined import blocks
from lora_job.merge.strategies.load import load_sum
from lora_job.merge.strategies.oracle import TrimProof
from lora_job.merge.stream import Reader, Sources, matrix_shape
from lora_job.outcome import Infrastructure, Refused
from lora_job.reasons import Reason

__all__ = ["Check", "check_of", "wrong"]

# A projection on ±1 has the rounding errors' norm in expectation; five times that is no accident.
PROJECTION_SLACK = 5.0
# float32 sums of a check itself are good to about 1e-6 of what is summed.
SUM_NOISE = 2e-6
BLOCK_ELEMENTS = 2**16
"""256 KiB of float32: what a check calculates from stays in a core's cache."""
# Masks that older checkpoints store (GPT-2, GPT-J, GPT-Neo, GPT-NeoX): in float16 the value for "never" is -Inf, and it is no weight.
MASKS = re.compile(r"(^|\.)(attn|attention)\.(masked_)?bias$")


def wrong(step: Step, what: str) -> Infrastructure:
    """The error of a tensor that is not what it should be."""
    return Infrastructure(
        Reason.VERIFICATION_FAILED,
        f"tensor {step.name}: {what}; nothing was published. Run again; if it stays so, test this machine's memory and disk",
    )


class Check(Protocol):
    """Looks at all rows of one tensor, in order."""

    def look(self, new: torch.Tensor, start: int, end: int) -> None:
        """Takes in the bytes of some rows as they were written."""

    def judge(self, figures: StepFigures | None) -> None:
        """Raises when the sums over all rows do not fit."""


def check_of(step: Step, *, sources: Sources, deltas: Deltas, seed: int) -> Check:
    """The check that fits a step."""
    if step.is_plain_copy:
        return _SameBytes(step, sources.origin_rows(step))
    if step.operation is Operation.LORA and not step.elementwise:
        return _Projected(step, sources.origin_rows(step), deltas=deltas, seed=seed)
    trims = TrimProof()
    exact = partial(calculate, step, sources=sources, deltas=deltas, dtype=torch.float64, load=trims.load)
    return _Recalculated(step, exact, trims=trims) if step.terms else _SameNumbers(step, exact())


class _SameBytes:
    """The origin's bytes, and numbers where they are floats."""

    def __init__(self, step: Step, reader: Reader) -> None:
        self._step, self._reader = step, reader
        self._dtype = TORCH.get(step.dtype)
        self._mask = MASKS.search(step.name) is not None

    def look(self, new: torch.Tensor, start: int, end: int) -> None:
        if not _same(self._reader.data(start, end), new):
            raise wrong(self._step, f"rows {start} to {end} are not those of the tensor it was copied from")
        if self._dtype is not None and new.numel():
            self._check_finite(new.view(self._dtype))

    def _check_finite(self, values: torch.Tensor) -> None:
        """One pass and no copy: the extremes are NaN where anything is."""
        low, high = (float(extreme) for extreme in torch.aminmax(values))
        if high < math.inf and (low > -math.inf or self._mask):
            return
        raise Refused(
            Reason.NOT_FINITE,
            f"tensor {self._step.name}: the base's {self._step.source or self._step.name} holds NaN or Inf and would be copied; "
            "the base is damaged, take it from its origin again",
        )

    def judge(self, figures: StepFigures | None) -> None:
        pass


def _same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two runs of bytes are equal: eight at a time, which torch does one by one."""
    if len(left) != len(right):
        return False
    whole = len(left) // 8 * 8
    ours, theirs = (part[:whole].view(torch.int64).numpy() for part in (left, right))
    return np.array_equal(ours, theirs) and torch.equal(left[whole:], right[whole:])


class _SameNumbers:
    """The origin's numbers, or an adapter's, rounded once: nothing was calculated."""

    def __init__(self, step: Step, exact: Calculation) -> None:
        self._step, self._exact = step, exact

    def look(self, new: torch.Tensor, start: int, end: int) -> None:
        dtype = TORCH[self._step.dtype]
        expected = round_once(self._exact.rows(start, end).after.double(), dtype)
        if not torch.equal(expected.view(-1), new.view(dtype)):
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

    def look(self, new: torch.Tensor, start: int, end: int) -> None:
        found = new.view(TORCH[self._step.dtype]).view(end - start, self._columns)
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


class _Projected:
    """Sums that a wrong delta cannot satisfy, at the cost of one vector."""

    def __init__(self, step: Step, reader: Reader, *, deltas: Deltas, seed: int) -> None:
        self._step, self._reader = step, reader
        self._columns = matrix_shape(step.shape)[1]
        # Another seed for each tensor would need a digest of its name; one vector per width is as good.
        generator = torch.Generator().manual_seed(seed + self._columns)
        self._signs = torch.randint(0, 2, (self._columns,), generator=generator).float().mul_(2).sub_(1)
        self._expected = load_sum(step, deltas, dtype=torch.float64).project(self._signs.double())
        self._residual = 0.0
        self._magnitude = 0.0
        self._moved = 0.0

    def look(self, new: torch.Tensor, start: int, end: int) -> None:
        before = self._reader.read(start, end)
        after = new.view(TORCH[self._step.dtype]).view(before.shape)
        compiled = kernels.find() if before.dtype == after.dtype and self._step.dtype in HALVES else None
        if compiled is not None:
            found = compiled.compare(before, after, along=self._signs)
            self._add(found.magnitude, found.moved, found.projected - self._expected[start:end])
            return
        # Some rows at a time: what is calculated from them stays in the cache.
        for first, last in blocks(start, end, columns=self._columns, elements=BLOCK_ELEMENTS):
            change = after[first - start : last - start].to(torch.float32, copy=True)
            magnitude = _square(change)
            change.sub_(before[first - start : last - start])
            difference = (change @ self._signs).double() - self._expected[first:last]
            self._add(magnitude, _square(change), difference)

    def _add(self, magnitude: float, moved: float, difference: torch.Tensor) -> None:
        self._magnitude += magnitude
        self._moved += moved
        self._residual += float(torch.dot(difference, difference))

    def judge(self, figures: StepFigures | None) -> None:
        if figures is None:
            raise wrong(self._step, "it was not recorded as merged")
        if not self._moved < float("inf"):
            raise wrong(self._step, "it holds NaN or Inf")
        noise = SUM_NOISE * (self._magnitude**0.5 + figures.delta)
        moved = self._moved**0.5
        if abs(moved - figures.delta) > figures.lost * 1.01 + noise:
            raise wrong(
                self._step, f"it changed by {moved:.6g}, expected {figures.delta:.6g} within {figures.lost:.3g}"
            )
        allowed = PROJECTION_SLACK * figures.lost + noise * self._columns**0.5
        if self._residual**0.5 > allowed:
            raise wrong(
                self._step, f"(W'−W)x is {self._residual**0.5:.6g} away from Δx, expected at most {allowed:.3g}"
            )


def _square(values: torch.Tensor) -> float:
    flat = values.reshape(-1)
    return float(torch.dot(flat, flat))

"""Does a written tensor hold what its step says? One check per kind of operation, fed with rows of the file that was written.

whole tensors, rows    the very bytes: nothing is calculated, so nothing may differ
W + low-rank Δ         finite; ‖W'−W‖ fits ‖Δ‖; a random projection (W'−W)x agrees with Δx, without a dense Δ
other calculations     recalculated.py, by torch
"""

import re
from typing import Protocol

import numpy as np

from lora_job.kernels import rows as kernels
from lora_job.merge.factors import Deltas
from lora_job.merge.figures import StepFigures
from lora_job.merge.plan import Operation, Step
from lora_job.merge.stored_numbers import Bytes, is_finite
from lora_job.merge.strategies.slerp import load_sum
from lora_job.merge.stream import Reader, Sources, matrix_shape
from lora_job.outcome import Infrastructure, Refused
from lora_job.reasons import Reason
from lora_job.tensors import FLOATS

__all__ = ["SUM_NOISE", "Check", "check_of", "wrong"]

# A projection on ±1 has the rounding errors' norm in expectation; five times that is no accident.
PROJECTION_SLACK = 5.0
# float32 sums of a check itself are good to about 1e-6 of what is summed.
SUM_NOISE = 2e-6
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

    def look(self, new: Bytes, start: int, end: int) -> None:
        """Takes in the bytes of some rows as they were written."""

    def judge(self, figures: StepFigures | None) -> None:
        """Raises when the sums over all rows do not fit."""


def check_of(step: Step, *, sources: Sources, deltas: Deltas, seed: int) -> Check:
    """The check that fits a step."""
    if step.is_plain_copy:
        return _SameBytes(step, sources.origin_rows(step))
    if step.operation is Operation.LORA and not step.elementwise:
        return _Projected(step, sources.origin_rows(step), deltas=deltas, seed=seed)
    from lora_job.merge.recalculated import recalculation_of  # noqa: PLC0415 (torch: such a tensor was written by it too)

    return recalculation_of(step, sources=sources, deltas=deltas)


class _SameBytes:
    """The origin's bytes, and numbers where they are floats."""

    def __init__(self, step: Step, reader: Reader) -> None:
        self._step, self._reader = step, reader
        self._mask = MASKS.search(step.name) is not None

    def look(self, new: Bytes, start: int, end: int) -> None:
        if not np.array_equal(self._reader.data(start, end), new):
            raise wrong(self._step, f"rows {start} to {end} are not those of the tensor it was copied from")
        if self._step.dtype in FLOATS and not is_finite(new, self._step.dtype, but_never=self._mask):
            raise Refused(
                Reason.NOT_FINITE,
                f"tensor {self._step.name}: the base's {self._step.source or self._step.name} holds NaN or Inf and would be "
                "copied; the base is damaged, take it from its origin again",
            )

    def judge(self, figures: StepFigures | None) -> None:
        pass


class _Projected:
    """Sums that a wrong delta cannot satisfy, at the cost of one vector."""

    def __init__(self, step: Step, reader: Reader, *, deltas: Deltas, seed: int) -> None:
        self._step, self._reader = step, reader
        self._columns = matrix_shape(step.shape)[1]
        # Another seed for each tensor would need a digest of its name; one vector per width is as good.
        random = np.random.default_rng(seed + self._columns)
        self._signs = random.choice(np.array([-1, 1], dtype=np.float32), self._columns)
        self._expected = load_sum(step, deltas).project(self._signs.astype(np.float64))
        self._residual = 0.0
        self._magnitude = 0.0
        self._moved = 0.0

    def look(self, new: Bytes, start: int, end: int) -> None:
        found = self._moves(new, start, end)
        difference = found.projected - self._expected[start:end]
        self._magnitude += found.magnitude
        self._moved += found.moved
        self._residual += float(difference @ difference)

    def _moves(self, new: Bytes, start: int, end: int) -> kernels.Moved:
        compiled, dtype = kernels.find(), self._step.dtype
        if compiled is None or dtype != self._reader.dtype or dtype not in kernels.HALVES:
            from lora_job.merge.recalculated import compare  # noqa: PLC0415 (torch: such a tensor was written by it too)

            return compare(self._reader, new, start, end, dtype=dtype, along=self._signs)
        before = self._reader.halves(start, end)
        return compiled.compare(before, new.view(np.uint16).reshape(before.shape), dtype=dtype, along=self._signs)

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

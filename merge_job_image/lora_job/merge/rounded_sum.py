"""W + Δ in 16 bits, rounded and measured in one pass of compiled code, without torch: what nearly all of most merges is.

A low-rank Δ on the CPU, and an output in the dtype of the base. calculated.py is for the other steps.
"""

import numpy as np

from lora_job.kernels import rows as kernels
from lora_job.merge.factors import Deltas, least_certain
from lora_job.merge.figures import StepFigures, figures_of
from lora_job.merge.plan import Operation, Step
from lora_job.merge.stored_numbers import Bits
from lora_job.merge.strategies.slerp import load_sum
from lora_job.merge.stream import Sources

__all__ = ["RoundedSum", "is_rounded_sum"]


def is_rounded_sum(step: Step) -> bool:
    """Whether it is such a sum, and this processor has compiled code for it."""
    plain = step.operation is Operation.LORA and not step.elementwise and not step.encoding
    in_halves = step.dtype == step.source_dtype and step.dtype in kernels.HALVES
    return plain and in_halves and kernels.find() is not None


class RoundedSum:
    """One tensor's rows, in the order and the chunks in which they are asked for."""

    def __init__(self, step: Step, *, sources: Sources, deltas: Deltas) -> None:
        """`step` is one."""
        compiled = kernels.find()
        if compiled is None:
            raise AssertionError(f"{step.name}: there is no compiled code")
        self._step, self._compiled = step, compiled
        self._reader, self._take = sources.origin_rows(step), sources.take
        self._exact = load_sum(step, deltas)
        self._delta = self._exact.in_float32()
        self._least = least_certain(self._delta, dtype=step.dtype)
        self._result = np.empty(0, dtype=np.uint8)
        self._lost, self._moved = 0.0, False

    def rows(self, start: int, end: int) -> Bits:
        """W + Δ in the stored dtype; valid until the next rows are asked for."""
        stored = self._reader.halves(start, end)
        if len(self._result) < stored.nbytes:
            self._result = self._take(stored.nbytes)
        result = self._result[: stored.nbytes].view(np.uint16).reshape(stored.shape)
        for part, exact in zip(self._delta.parts(start, end), self._exact.parts(start, end), strict=True):
            here = slice(part.place, part.place + part.height)
            found = self._compiled.merge(
                stored[here],
                dtype=self._step.dtype,
                left=part.factors.left[part.first : part.last],
                right=part.factors.right,
                exact_left=exact.factors.left[part.first : part.last],
                exact_right=exact.factors.right,
                least=self._least[start:end][here],
                result=result[here],
            )
            self._lost += found.lost
            self._moved = self._moved or found.moved
        return result

    def figures(self) -> StepFigures:
        """Once all rows were asked for."""
        return figures_of(self._step, delta=self._exact.norm(), moved=self._moved, lost=self._lost)

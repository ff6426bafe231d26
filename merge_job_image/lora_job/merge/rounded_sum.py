"""W + Δ in 16 bits, rounded and measured in one pass of compiled code: what Lora, the encoding and Sums do in many.

Only what most of a model is: a low-rank Δ on the CPU, and an output in the dtype of the base. The other steps are calculated by torch.
"""

from typing import Self

import torch

from lora_job.merge import kernels
from lora_job.merge.factors import LowRank, Stacked
from lora_job.merge.figures import StepFigures, figures_of
from lora_job.merge.operations import Calculation
from lora_job.merge.operations.cancellation import Cancellation
from lora_job.merge.operations.lora import Lora
from lora_job.merge.plan import Step

__all__ = ["HALVES", "RoundedSum"]

HALVES = ("BF16", "F16")


class RoundedSum:
    """One tensor's rows, in the order and the chunks in which they are asked for."""

    def __init__(
        self,
        step: Step,
        calculation: Lora,
        *,
        delta: LowRank | Stacked,
        cancellation: Cancellation,
        compiled: kernels.Kernels,
    ) -> None:
        self._step = step
        self._reader, self._take = calculation.reader, calculation.take
        self._delta, self._exact, self._least = delta, cancellation.exact, cancellation.least
        self._compiled = compiled
        self._result = torch.empty(0, dtype=torch.uint8)
        self._lost, self._moved = 0.0, False

    @classmethod
    def of(cls, step: Step, calculation: Calculation) -> Self | None:
        """None where it is something else, or this processor has no compiled code."""
        compiled = kernels.find()
        if compiled is None or not isinstance(calculation, Lora) or calculation.cancellation is None:
            return None
        delta = calculation.delta
        if step.dtype != step.source_dtype or step.dtype not in HALVES or not isinstance(delta, LowRank | Stacked):
            return None
        return cls(step, calculation, delta=delta, cancellation=calculation.cancellation, compiled=compiled)

    def rows(self, start: int, end: int) -> torch.Tensor:
        """W + Δ in the stored dtype; valid until the next rows are asked for."""
        stored = self._reader.read(start, end)
        size = stored.numel() * stored.element_size()
        if self._result.numel() < size:
            self._result = self._take(size)
        result = self._result[:size].view(stored.dtype).view(stored.shape)
        for part, exact in zip(self._delta.parts(start, end), self._exact.parts(start, end), strict=True):
            here = slice(part.place, part.place + part.height)
            found = self._compiled.merge(
                stored[here],
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

"""m ⊙ V / ‖V‖ with V = W + Δ: weight-decomposed adaptation (Liu and others, 2024).

The norm belongs to one output unit: a row of a linear layer, but a column where the weight is stored [in, out] (Conv1D) and, by PEFT's
definition, a column of an embedding. Rows are known from themselves; columns need a pass over the tensor of their own.
"""

import torch

from lora_job.merge.blocks import Take
from lora_job.merge.dense import Dense
from lora_job.merge.factors import Deltas
from lora_job.merge.operations.calculation import Calculated
from lora_job.merge.operations.lora import Lora
from lora_job.merge.plan import Geometry, Step
from lora_job.merge.stream import Reader, chunks, matrix_shape
from lora_job.merge.torch_rows import read_tensor
from lora_job.tensors import DTYPE_BYTES

__all__ = ["Dora"]


class Dora:
    """Directions of the merged weights, lengths of the magnitude vector."""

    def __init__(self, step: Step, reader: Reader, *, deltas: Deltas, dtype: torch.dtype, take: Take) -> None:
        if step.magnitude is None:
            raise AssertionError(f"{step.name} has no magnitude")
        self._step = step
        self._sum = Lora(reader, delta=Dense(deltas.load(step)), dtype=dtype, take=take)
        self._magnitude = read_tensor(deltas.files, *deltas.place(step.magnitude)).to(dtype).reshape(-1)
        self._by_column = any(term.geometry is not Geometry.LINEAR for term in step.terms)
        self._column_factors: torch.Tensor | None = None

    def rows(self, start: int, end: int) -> Calculated:
        if self._by_column:
            factors = self._factors_of_columns()
            found = self._sum.rows(start, end)
        else:
            found = self._sum.rows(start, end)
            norms = torch.linalg.vector_norm(found.after, dim=1)
            factors = _quotient(self._magnitude[start:end], norms).unsqueeze(1)
        return Calculated(before=found.before, after=found.after.mul_(factors))

    def _factors_of_columns(self) -> torch.Tensor:
        if self._column_factors is None:
            squares = self._magnitude.new_zeros(matrix_shape(self._step.shape)[1])
            for start, end in chunks(self._step.shape, item=DTYPE_BYTES[self._step.source_dtype]):
                squares += self._sum.rows(start, end).after.square().sum(dim=0)
            self._column_factors = _quotient(self._magnitude, squares.sqrt())
        return self._column_factors

    def change_norm(self) -> float | None:
        return None


def _quotient(magnitude: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """m / ‖V‖; a unit whose weights are all zero has no direction and stays zero."""
    return torch.where(norms > 0, magnitude / norms.clamp_min(torch.finfo(norms.dtype).tiny), torch.zeros_like(norms))

"""What torch calculates of a merge: tensors that are neither copied nor a plain sum in 16 bits, streamed in chunks of rows.

What a row's numbers are is operations' business, how they are stored is encode's; float32 output is calculated in float64.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch

from lora_job.merge.encode import begin
from lora_job.merge.factors import Deltas
from lora_job.merge.figures import StepFigures, figures_of, not_finite
from lora_job.merge.operations import Calculated, calculate, working_dtype
from lora_job.merge.plan import Step
from lora_job.merge.strategies.load import load_delta
from lora_job.merge.stream import Sources, chunks, matrix_shape
from lora_job.tensors import DTYPE_BYTES

__all__ = ["Put", "write_calculated"]


class Put(Protocol):
    """Takes bytes of a stored tensor, from its byte `begin` on."""

    def __call__(self, tensor: str, begin: int, view: memoryview, /) -> None: ...


def write_calculated(
    step: Step, *, sources: Sources, deltas: Deltas, device: str, put: Put, check: Callable[[], None]
) -> StepFigures | None:
    """All of a tensor; figures where it is merged and stored as itself. `check` raises when the work must stop."""
    load = partial(load_delta, device=device)
    calculation = calculate(step, sources=sources, deltas=deltas, dtype=working_dtype(step), load=load)
    encoding, columns = begin(step), matrix_shape(step.shape)[1]
    sums = None if step.encoding else _Sums(step, delta=calculation.change_norm())
    for start, end in chunks(step.shape, item=DTYPE_BYTES[step.source_dtype], multiple=encoding.row_multiple):
        check()
        calculated = calculation.rows(start, end)
        for piece in encoding.feed(calculated.after, start=start):
            put(piece.tensor, piece.start * piece.values.element_size(), _bytes(piece.values))
            if sums is not None:
                sums.add(calculated, piece.values, place=piece.start - start * columns)
    for piece in encoding.finish():
        put(piece.tensor, piece.start * piece.values.element_size(), _bytes(piece.values))
    return None if sums is None else sums.figures()


def _bytes(values: torch.Tensor) -> memoryview:
    return memoryview(values.contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


class _Sums:
    """Summed up from rows before and after the rounding."""

    def __init__(self, step: Step, *, delta: float | None) -> None:
        """`delta`: its norm where it is known without a dense pass, otherwise it is summed up here."""
        self._step = step
        self._delta = delta
        self._has_delta = self._moved = False
        self._changed = self._lost = 0.0

    def add(self, calculated: Calculated, result: torch.Tensor, *, place: int) -> None:
        """Takes in what some elements, from `place` on, were rounded to; overwrites them in the rows."""
        if calculated.before is None:
            if not bool(torch.isfinite(result).all()):
                raise not_finite(self._step)
            return
        before, after = (
            rows.view(-1)[place : place + result.numel()] for rows in (calculated.before, calculated.after)
        )
        self._has_delta = True
        if self._delta is None:
            self._changed += _square(after - before)
        # One changed number is enough to know, and it is among the first.
        self._moved = self._moved or bool((before != result).any())
        after.sub_(result)
        self._lost += _square(after)

    def figures(self) -> StepFigures | None:
        """None for a tensor without a delta."""
        if not self._has_delta:
            return None
        delta = self._changed**0.5 if self._delta is None else self._delta
        return figures_of(self._step, delta=delta, moved=self._moved, lost=self._lost)


def _square(values: torch.Tensor) -> float:
    return float(torch.dot(values, values))

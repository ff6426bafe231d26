"""What a step's result is, before it is rounded: one file per kind of operation, one way to ask for rows.

    COPY UNTIE REPLACE ADD   whole.py   the origin's own numbers
    ROWS                     rows.py    the origin with some rows replaced
    LORA                     lora.py    W + Δ
    DORA                     dora.py    m ⊙ (W + Δ) / ‖W + Δ‖

The engine asks in its working dtype and rounds; verification and validation ask in float64 and compare.
"""

from functools import partial
from typing import Protocol

import torch

from lora_job.merge.dense import Delta, Dense
from lora_job.merge.factors import Deltas, least_certain
from lora_job.merge.operations.calculation import Calculated, Calculation
from lora_job.merge.operations.cancellation import Cancellation
from lora_job.merge.operations.dora import Dora
from lora_job.merge.operations.lora import Lora
from lora_job.merge.operations.rows import ReplacedRows
from lora_job.merge.operations.whole import Whole
from lora_job.merge.plan import Operation, Step
from lora_job.merge.strategies.load import load_delta
from lora_job.merge.strategies.slerp import load_sum
from lora_job.merge.stream import Sources

__all__ = ["Calculated", "Calculation", "LoadDelta", "calculate", "working_dtype"]


class LoadDelta(Protocol):
    """How a step's delta is calculated: by its strategy, or in another way to check that."""

    def __call__(self, step: Step, deltas: Deltas, *, dtype: torch.dtype) -> Delta: ...


def working_dtype(step: Step) -> torch.dtype:
    """float32 is enough for W + Δ in 16 bits and one rounding, but for what cancellation.py looks after; 32 bits, a quotient of norms
    and decisions by element need more, and so does a quantized tensor, which is made from the float32 result."""
    wide = step.dtype in {"F32", "F64"} or step.operation is Operation.DORA or step.elementwise or bool(step.encoding)
    return torch.float64 if wide else torch.float32


def calculate(
    step: Step, *, sources: Sources, deltas: Deltas, dtype: torch.dtype, load: LoadDelta = load_delta
) -> Calculation:
    """The result of a step by rows; factors are loaded now, weights when rows are asked for."""
    reader = sources.origin_rows(step)
    match step.operation:
        case Operation.LORA:
            delta = load(step, deltas, dtype=dtype)
            cancellation = _cancellation(step, delta, deltas) if dtype is torch.float32 else None
            return Lora(reader, delta=delta, dtype=dtype, take=sources.take, cancellation=cancellation)
        case Operation.DORA:
            return Dora(step, reader, deltas=deltas, dtype=dtype, take=sources.take)
        case Operation.ROWS:
            return ReplacedRows(step, reader, deltas=deltas)
        case Operation.COPY | Operation.UNTIE | Operation.REPLACE | Operation.ADD:
            return Whole(reader)


def _cancellation(step: Step, delta: Delta, deltas: Deltas) -> Cancellation | None:
    """None where decisions are made by element: that is done in float64."""
    if not isinstance(delta, Dense):
        return None
    return Cancellation(least_certain(delta.factors, dtype=step.dtype), exact=partial(load_sum, step, deltas))

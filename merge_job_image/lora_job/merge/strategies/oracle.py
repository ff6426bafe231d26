"""Δ of a combined step, calculated another way than the merge does it: what the verification compares with.

slerp          the angle from the dense deltas, summed block by block, instead of from r×r products
ties, dare_*   all adapters side by side: sum, sign, mean, instead of running sums of both sides;
               a trim is not searched again but proven: it keeps exactly the wanted number of elements, counted as they pass
"""

import math

import torch

from lora_job.merge.dense import Delta, Dense
from lora_job.merge.factors import Deltas, Factors
from lora_job.merge.plan import Step
from lora_job.merge.recipe import Strategy
from lora_job.merge.strategies.combined import blocks, load_parts, trims_of
from lora_job.merge.strategies.slerp import shares_of, with_shares
from lora_job.merge.stream import matrix_shape

__all__ = ["TrimProof", "load_oracle"]


def load_oracle(step: Step, deltas: Deltas, *, dtype: torch.dtype) -> Delta:
    """The delta of a step in float64; `dtype` is what others load with."""
    if step.elementwise:
        return _SideBySide(step, deltas, dtype=dtype)
    if step.combination is not None:
        step = with_shares(step, deltas, by=_dense_shares)
    return Dense(deltas.load(step))


class TrimProof:
    """An oracle whose rows are asked for once each, and which then knows what the trims of ties kept of them."""

    def __init__(self) -> None:
        self._delta: _SideBySide | None = None

    def load(self, step: Step, deltas: Deltas, *, dtype: torch.dtype) -> Delta:
        """As load_oracle."""
        found = load_oracle(step, deltas, dtype=dtype)
        self._delta = found if isinstance(found, _SideBySide) else None
        return found

    def problem(self) -> str:
        """What is wrong with a threshold, "" when each has kept exactly as many elements as the density asks for."""
        return self._delta.wrong_trim() if self._delta is not None else ""


class _SideBySide:
    """ties and dare as they are defined."""

    def __init__(self, step: Step, deltas: Deltas, *, dtype: torch.dtype) -> None:
        self._combination = step.combined()
        self._columns = matrix_shape(step.shape)[1]
        self._parts = load_parts(step, deltas)
        self._trims = trims_of(step, self._parts, deltas)
        self._weights = torch.tensor([part.weight for part in self._parts], dtype=torch.float64).view(-1, 1, 1)
        self._dtype = dtype
        self._kept = [0] * len(self._parts)

    def rows(self, start: int, end: int) -> torch.Tensor:
        found = [self._block(first, last) for first, last in blocks(start, end, columns=self._columns)]
        return torch.cat(found).to(self._dtype)

    def add_to(self, weights: torch.Tensor, start: int, end: int) -> None:
        weights.add_(self.rows(start, end))

    def norm(self) -> None:
        """Not known without a dense pass."""

    def _block(self, start: int, end: int) -> torch.Tensor:
        votes = self._weights * torch.stack([self._thinned(number, start, end) for number in range(len(self._parts))])
        total = votes.sum(dim=0)
        if self._combination.strategy is Strategy.DARE_LINEAR:
            return total * self._combination.scale
        side = torch.where(total >= 0, 1.0, -1.0)
        votes *= side  # those that agree are above 0 now
        share = (self._weights.abs() * (votes > 0)).sum(dim=0)
        return votes.clamp_(min=0).sum(dim=0) * side / torch.where(share > 0, share, 1.0) * self._combination.scale

    def _thinned(self, number: int, start: int, end: int) -> torch.Tensor:
        part, trim = self._parts[number], self._trims[number]
        delta = part.delta.rows(start, end)
        kept = part.kept(delta, start, trim=trim)
        if trim is not None:
            self._kept[number] += int(torch.count_nonzero(kept))
        return part.thinned(delta, kept)

    def wrong_trim(self) -> str:
        """Once every row was asked for."""
        for part, trim, kept in zip(self._parts, self._trims, self._kept, strict=True):
            if trim is not None and kept != part.keep:
                return f"its trim keeps {kept} of {part.elements} elements, expected {part.keep}"
        return ""


def _dense_shares(first: Factors, second: Factors, t: float) -> tuple[float, float]:
    inner = first_square = second_square = 0.0
    rows, columns = math.prod(first.left.shape[:-1]), first.right.shape[-1]
    both = Dense(first), Dense(second)
    for start, end in blocks(0, rows, columns=columns):
        left, right = (dense.rows(start, end).reshape(-1) for dense in both)
        inner += float(torch.dot(left, right))
        first_square += float(torch.dot(left, left))
        second_square += float(torch.dot(right, right))
    return shares_of(inner, first_square, second_square, t=t)

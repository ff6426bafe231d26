"""Δ of a combined step, calculated another way than the merge does it: what the verification compares with.

slerp          the angle from the dense deltas, summed block by block, instead of from r×r products
ties, dare_*   all adapters side by side: sum, sign, mean, instead of running sums of both sides;
               a trim is not searched again but proven: it keeps exactly the wanted number of elements
"""

import torch

from lora_job.merge.factors import Delta, Deltas, Factors
from lora_job.merge.plan import Step
from lora_job.merge.recipe import Strategy
from lora_job.merge.strategies.combined import blocks, combination_of, load_parts, trims_of
from lora_job.merge.strategies.load import with_shares
from lora_job.merge.strategies.slerp import shares_of
from lora_job.merge.strategies.trim import count_kept
from lora_job.merge.stream import matrix_shape

__all__ = ["load_oracle", "wrong_trim"]


def load_oracle(step: Step, deltas: Deltas, *, dtype: torch.dtype) -> Delta:
    """The delta of a step in float64; `dtype` is what others load with."""
    if step.elementwise:
        return _SideBySide(step, deltas, dtype=dtype)
    if step.combination is not None:
        step = with_shares(step, deltas, by=_dense_shares)
    return deltas.load(step, dtype=dtype)


def wrong_trim(step: Step, deltas: Deltas) -> str:
    """What is wrong with a threshold of ties, "" when each keeps exactly as many elements as the density asks for."""
    parts = load_parts(step, deltas)
    for part, trim in zip(parts, trims_of(step, parts, deltas), strict=True):
        kept = part.keep if trim is None else count_kept(part.whole, trim)
        if kept != part.keep:
            return f"its trim keeps {kept} of {part.elements} elements, expected {part.keep}"
    return ""


class _SideBySide:
    """ties and dare as they are defined."""

    def __init__(self, step: Step, deltas: Deltas, *, dtype: torch.dtype) -> None:
        self._combination = combination_of(step)
        self._columns = matrix_shape(step.shape)[1]
        self._parts = load_parts(step, deltas)
        self._trims = trims_of(step, self._parts, deltas)
        self._weights = torch.tensor([part.weight for part in self._parts], dtype=torch.float64).view(-1, 1, 1)
        self._dtype = dtype

    def rows(self, start: int, end: int) -> torch.Tensor:
        found = [self._block(first, last) for first, last in blocks(start, end, columns=self._columns)]
        return torch.cat(found).to(self._dtype)

    def add_to(self, weights: torch.Tensor, start: int, end: int) -> None:
        weights.add_(self.rows(start, end))

    def norm(self) -> None:
        """Not known without a dense pass."""

    def _block(self, start: int, end: int) -> torch.Tensor:
        votes = self._weights * torch.stack(
            [part.rows(start, end, trim=trim) for part, trim in zip(self._parts, self._trims, strict=True)]
        )
        total = votes.sum(dim=0)
        if self._combination.strategy is Strategy.DARE_LINEAR:
            return total * self._combination.scale
        agreeing = votes.sign() == torch.where(total >= 0, 1.0, -1.0)
        share = (self._weights.abs() * agreeing).sum(dim=0)
        return (votes * agreeing).sum(dim=0) / torch.where(share > 0, share, 1.0) * self._combination.scale


def _dense_shares(first: Factors, second: Factors, t: float) -> tuple[float, float]:
    inner = first_square = second_square = 0.0
    rows, columns = _shape(first)
    for start, end in blocks(0, rows, columns=columns):
        left, right = (factors.rows(start, end).reshape(-1) for factors in (first, second))
        inner += float(torch.dot(left, right))
        first_square += float(torch.dot(left, left))
        second_square += float(torch.dot(right, right))
    return shares_of(inner, first_square, second_square, t=t)


def _shape(factors: Factors) -> tuple[int, int]:
    return factors.left.shape[:-1].numel(), int(factors.right.shape[-1])

"""Elements of a delta, with torch: what is added to rows that no compiled code adds to.

A low-rank delta's products may be calculated on another device; rows come from the CPU's memory and go back to it.
"""

from collections.abc import Iterator
from typing import Protocol

import torch

from lora_job.merge.device import CPU
from lora_job.merge.factors import Factors, LowRank, by_expert

__all__ = ["Delta", "Dense"]

SAMPLE_SIDE, SAMPLE_EXPERTS = 512, 16


class Delta(Protocol):
    """What is added to a tensor, [rows, columns], in one dtype."""

    def rows(self, start: int, end: int) -> torch.Tensor:
        """Δ of some rows."""

    def add_to(self, weights: torch.Tensor, start: int, end: int) -> None:
        """weights += Δ of some rows."""

    def norm(self) -> float | None:
        """‖Δ‖ where it is known without a dense pass."""


class Dense:
    """The elements of factors."""

    def __init__(self, factors: Factors, *, device: str = CPU) -> None:
        """Calculates in the factors' dtype."""
        self.factors = factors
        left, right = (torch.from_numpy(side).to(device) for side in (factors.left, factors.right))
        self._device = device
        # One matrix is one expert.
        self._left, self._right = (left[None], right[None]) if isinstance(factors, LowRank) else (left, right)

    def rows(self, start: int, end: int) -> torch.Tensor:
        found = [left @ right for left, right, _ in self._parts(start, end)]
        return (found[0] if len(found) == 1 else torch.cat(found)).cpu()

    def add_to(self, weights: torch.Tensor, start: int, end: int) -> None:
        there = weights.to(self._device)
        for left, right, rows in self._parts(start, end):
            there[rows].addmm_(left, right)
        if there is not weights:
            weights.copy_(there)

    def norm(self) -> float:
        return self.factors.norm()

    def elements(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Δ of single elements."""
        experts = torch.div(rows, self._left.shape[1], rounding_mode="floor")
        return (self._left.flatten(0, 1)[rows] * self._right.mT[experts, columns]).sum(dim=-1)

    def sample(self) -> torch.Tensor:
        """At most SAMPLE_SIDE² elements of each of SAMPLE_EXPERTS matrices, of rows and columns from all over them."""
        few = range(0, len(self._left), -(-len(self._left) // SAMPLE_EXPERTS))
        rows, columns = (-(-size // SAMPLE_SIDE) for size in (self._left.shape[1], self._right.shape[2]))
        return torch.cat([(self._left[one, ::rows] @ self._right[one, :, ::columns]).reshape(-1) for one in few])

    def _parts(self, start: int, end: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
        """(left, right, which of the rows asked for) of each matrix."""
        for expert, first, last, place in by_expert(start, end, height=self._left.shape[1]):
            yield self._left[expert, first:last], self._right[expert], slice(place, place + last - first)

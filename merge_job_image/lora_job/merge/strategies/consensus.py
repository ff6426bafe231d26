"""ties, second half: adapters that pull an element to different sides do not cancel; the side that weighs more wins.

    elected sign    of Σ wᵢδᵢ, 0 counts as +
    value           Σ wᵢδᵢ / Σ |wᵢ|   over those whose wᵢδᵢ is not 0 and has that sign

|wᵢ| is wᵢ for the usual positive weights; a negative one votes for, and adds, the opposite of its delta.
P. Yadav et al., TIES-Merging: Resolving interference when merging models, 2023.
"""

from collections.abc import Iterable

import torch

__all__ = ["Consensus"]


class Consensus:
    """Running sums, so that no adapter's delta has to be kept until the sign is known; in buffers that serve one block after the other."""

    def __init__(self) -> None:
        self._numbers = torch.empty(6, 0, dtype=torch.float64)
        self._mask = torch.empty(0, dtype=torch.bool)

    def of(self, votes: Iterable[tuple[torch.Tensor, float]]) -> torch.Tensor:
        """The mean of the winning side of (delta, weight) pairs; 0 where no adapter has anything. Valid until the next call."""
        started = False
        for delta, weight in votes:
            if not started:
                self._start(delta.shape)
                started = True
            self._add(delta, weight)
        return self._result()

    def _start(self, shape: torch.Size) -> None:
        if self._mask.shape != shape:
            self._numbers = torch.empty((6, *shape), dtype=torch.float64)
            self._mask = torch.empty(shape, dtype=torch.bool)
        self._numbers[:4].zero_()

    def _add(self, delta: torch.Tensor, weight: float) -> None:
        total, positive, positive_weight, negative_weight, part, side = self._numbers
        total += torch.mul(delta, weight, out=part)
        positive += torch.clamp(part, min=0, out=side)
        positive_weight.add_(torch.gt(part, 0, out=self._mask), alpha=abs(weight))
        negative_weight.add_(torch.lt(part, 0, out=self._mask), alpha=abs(weight))

    def _result(self) -> torch.Tensor:
        total, positive, positive_weight, negative_weight, weight, winner = self._numbers
        torch.ge(total, 0, out=self._mask)
        total -= positive  # what is left is the negative side
        torch.where(self._mask, positive, total, out=winner)
        torch.where(self._mask, positive_weight, negative_weight, out=weight)
        # Where nobody votes both are 0, and 0 divided by anything is 0.
        mean: torch.Tensor = winner.div_(weight.clamp_(min=torch.finfo(torch.float64).tiny))
        return mean

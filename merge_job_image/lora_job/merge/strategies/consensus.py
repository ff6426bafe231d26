"""ties, second half: adapters that pull an element to different sides do not cancel; the side that weighs more wins.

    elected sign    of Σ wᵢδᵢ, 0 counts as +
    value           Σ wᵢδᵢ / Σ |wᵢ|   over those whose wᵢδᵢ is not 0 and has that sign

|wᵢ| is wᵢ for the usual positive weights; a negative one votes for, and adds, the opposite of its delta.
P. Yadav et al., TIES-Merging: Resolving interference when merging models, 2023.
"""

import torch

__all__ = ["Consensus"]


class Consensus:
    """Both sides' sums, so that no adapter's delta has to be kept until the sign is known."""

    def __init__(self, shape: torch.Size) -> None:
        self._positive = torch.zeros(shape, dtype=torch.float64)
        self._negative = torch.zeros(shape, dtype=torch.float64)
        self._positive_weight = torch.zeros(shape, dtype=torch.float64)
        self._negative_weight = torch.zeros(shape, dtype=torch.float64)

    def add(self, delta: torch.Tensor, *, weight: float) -> None:
        """One adapter's delta."""
        part = delta * weight
        self._positive += part.clamp(min=0)
        self._negative += part.clamp(max=0)
        self._positive_weight.add_((part > 0).double(), alpha=abs(weight))
        self._negative_weight.add_((part < 0).double(), alpha=abs(weight))

    def result(self) -> torch.Tensor:
        """The mean of the winning side; 0 where no adapter has anything."""
        wins = self._positive + self._negative >= 0
        total = torch.where(wins, self._positive, self._negative)
        weight = torch.where(wins, self._positive_weight, self._negative_weight)
        return total / torch.where(weight > 0, weight, 1.0)

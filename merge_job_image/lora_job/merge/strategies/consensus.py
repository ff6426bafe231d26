"""ties, second half: adapters that pull an element to different sides do not cancel; the side that weighs more wins.

    elected sign    of Σ wᵢδᵢ, 0 counts as +
    value           Σ wᵢδᵢ / Σ |wᵢ|   over those whose wᵢδᵢ is not 0 and has that sign

|wᵢ| is wᵢ for the usual positive weights; a negative one votes for, and adds, the opposite of its delta.
P. Yadav et al., TIES-Merging: Resolving interference when merging models, 2023.
"""

from collections.abc import Iterable

import torch

__all__ = ["Consensus"]


_SIGN = 63
"""The place of a float64's sign: shifted down by this its bits are all 1 for a negative number and all 0 for the others."""


class Consensus:
    """Running sums, so that no adapter's delta has to be kept until the sign is known; in buffers that serve one block after the other.

    Weights are chosen by the bits of signs: a mask of True and False would be converted to numbers first, which takes longer than the rest.
    """

    def __init__(self) -> None:
        self._numbers = torch.empty(6, 0, dtype=torch.float64)

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
        if self._numbers.shape[1:] != shape:
            self._numbers = torch.empty((6, *shape), dtype=torch.float64)
        self._numbers[:4].zero_()

    def _add(self, delta: torch.Tensor, weight: float) -> None:
        total, positive, positive_weight, negative_weight, part, side = self._numbers
        torch.mul(delta, weight, out=part)
        part.add_(0.0)  # −0 has the bits of a negative number and is none; this makes it +0
        total += part
        positive += torch.clamp(part, min=0, out=side)
        bits, chosen = part.view(torch.int64), side.view(torch.int64)
        size = torch.tensor(abs(weight), dtype=torch.float64).view(torch.int64)
        torch.bitwise_right_shift(bits, _SIGN, out=chosen)
        negative_weight += chosen.bitwise_and_(size).view(torch.float64)
        torch.neg(bits, out=chosen)
        positive_weight += chosen.bitwise_right_shift_(_SIGN).bitwise_and_(size).view(torch.float64)

    def _result(self) -> torch.Tensor:
        total, positive, positive_weight, negative_weight, negative, _ = self._numbers
        torch.sub(total, positive, out=negative)
        lost = total.view(torch.int64).bitwise_right_shift_(_SIGN)  # all bits where the negative side wins
        for ours, theirs in ((positive, negative), (positive_weight, negative_weight)):
            both = ours.view(torch.int64)
            both ^= theirs.view(torch.int64).bitwise_xor_(both).bitwise_and_(lost)
        # Where nobody votes both are 0, and 0 divided by anything is 0.
        mean: torch.Tensor = positive.div_(positive_weight.clamp_(min=torch.finfo(torch.float64).tiny))
        return mean

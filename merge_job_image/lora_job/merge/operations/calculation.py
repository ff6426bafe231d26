"""The shape every operation has for those who ask it for rows."""

from dataclasses import dataclass
from typing import Protocol

import torch

__all__ = ["Calculated", "Calculation"]


@dataclass(frozen=True, kw_only=True)
class Calculated:
    """Rows of a result, not rounded yet; valid until the next are asked for, and free to be overwritten."""

    before: torch.Tensor | None
    """The origin's rows as they are stored; None where there is no delta to speak of."""
    after: torch.Tensor
    """In the working dtype."""


class Calculation(Protocol):
    """One tensor's result, [rows, columns]."""

    def rows(self, start: int, end: int) -> Calculated:
        """Some rows."""

    def change_norm(self) -> float | None:
        """‖result − origin‖ where it is known without a dense pass; None: whoever wants it sums it up."""

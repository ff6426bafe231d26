"""What every format offers, and the one that changes nothing but the dtype."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from lora_job.merge.plan import Step, Stored
from lora_job.merge.rounding import TORCH, round_once
from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["Encoder", "Encoding", "Piece", "Plain", "check_finite"]

PIECE_BYTES = 2**18
"""Of numbers before they are rounded: they and what rounding needs stay in a core's cache, and are no further chunks in memory."""
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A run of elements of one stored tensor."""

    tensor: str
    """Name of the stored tensor."""
    start: int
    """Its first element, counted through the whole tensor."""
    values: torch.Tensor


class Encoding(Protocol):
    """One tensor while it is written."""

    row_multiple: int
    """How many rows must come together, so that no block of the format is cut; the last rows may be fewer."""

    def feed(self, rows: torch.Tensor, *, start: int) -> Iterator[Piece]:
        """The next rows of the result, from row `start`, in the dtype they were calculated in."""
        ...

    def finish(self) -> Iterator[Piece]:
        """What only the whole tensor tells."""
        ...


class Encoder(Protocol):
    """A format, as far as a plan needs it."""

    def fits(self, shape: Shape) -> bool:
        """Whether a matrix of this shape can be stored in it."""
        ...

    def stored(self, name: str, *, shape: Shape, dtype: str) -> tuple[Stored, ...]:
        """The tensors that `name` becomes; `dtype` is what it would be without quantization."""
        ...

    def settings(self, *, skipped: Sequence[str], dtype: str) -> Mapping[str, Any]:
        """`quantization_config` of config.json. `skipped`: modules that stay as they are."""
        ...


class Plain:
    """Not quantized: one rounding to the stored dtype."""

    row_multiple = 1

    def __init__(self, step: Step) -> None:
        self._name = step.name
        self._dtype = TORCH[step.dtype]

    def feed(self, rows: torch.Tensor, *, start: int) -> Iterator[Piece]:
        flat, size = rows.reshape(-1), PIECE_BYTES // rows.element_size()
        for first in range(0, flat.numel(), size):
            part = flat[first : first + size]
            # torch's own cast of float64 would round twice.
            rounded = round_once(part, self._dtype) if part.dtype is torch.float64 else part.to(self._dtype)
            yield Piece(tensor=self._name, start=start * rows.shape[1] + first, values=rounded)

    def finish(self) -> Iterator[Piece]:
        return iter(())


def check_finite(values: torch.Tensor, *, name: str, held_as: str) -> None:
    """Refuses NaN and Inf: a scale made of them would ruin a whole block."""
    if not bool(torch.isfinite(values).all()):
        raise Refused(
            Reason.NOT_FINITE,
            f"tensor {name}: the result holds NaN or Inf in {held_as}; base or adapter is damaged, or the values do not fit: "
            "try another --quantization, or none",
        )

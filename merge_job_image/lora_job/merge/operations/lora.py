"""W + Δ."""

import torch

from lora_job.merge.factors import Delta
from lora_job.merge.operations.calculation import Calculated
from lora_job.merge.operations.cancellation import Cancellation
from lora_job.merge.stream import Reader

__all__ = ["Lora"]


class Lora:
    """One product per chunk, in a buffer that is allocated once: fresh pages cost more than the arithmetic."""

    def __init__(
        self, reader: Reader, *, delta: Delta, dtype: torch.dtype, cancellation: Cancellation | None = None
    ) -> None:
        """`cancellation`: what float32 is not enough for; None where it is not asked, or `dtype` is wider."""
        self._reader = reader
        self._delta = delta
        self._cancellation = cancellation
        self._after = torch.empty(0, dtype=dtype)

    def rows(self, start: int, end: int) -> Calculated:
        stored = self._reader.read(start, end)
        if self._after.shape != stored.shape:
            self._after = self._after.new_empty(stored.shape)
        self._delta.add_to(self._after.copy_(stored), start, end)
        if self._cancellation is not None:
            self._cancellation.mend(self._after, before=stored, start=start, end=end)
        return Calculated(before=stored, after=self._after)

    def change_norm(self) -> float | None:
        return self._delta.norm()

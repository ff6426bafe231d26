"""W + Δ."""

import torch

from lora_job.merge.factors import Delta
from lora_job.merge.operations.calculation import Calculated
from lora_job.merge.stream import Reader

__all__ = ["Lora"]


class Lora:
    """One product per chunk, in buffers that are allocated once: fresh pages cost more than the arithmetic."""

    def __init__(self, reader: Reader, *, delta: Delta, dtype: torch.dtype) -> None:
        self._reader = reader
        self._delta = delta
        self._before = torch.empty(0, dtype=dtype)
        self._after = torch.empty(0, dtype=dtype)

    def rows(self, start: int, end: int) -> Calculated:
        stored = self._reader.read(start, end)
        if self._before.shape != stored.shape:
            self._before = self._before.new_empty(stored.shape)
            self._after = self._after.new_empty(stored.shape)
        self._before.copy_(stored)
        self._delta.added_to(self._before, start, end, out=self._after)
        return Calculated(before=self._before, after=self._after)

    def change_norm(self) -> float | None:
        return self._delta.norm()

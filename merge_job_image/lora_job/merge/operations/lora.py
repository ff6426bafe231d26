"""W + Δ."""

import torch

from lora_job.merge.blocks import Take
from lora_job.merge.dense import Delta
from lora_job.merge.operations.calculation import Calculated
from lora_job.merge.operations.cancellation import Cancellation
from lora_job.merge.stream import Reader
from lora_job.merge.torch_rows import read_rows

__all__ = ["Lora"]


class Lora:
    """One product per chunk, in a buffer that is taken once: fresh pages cost more than the arithmetic."""

    def __init__(
        self,
        reader: Reader,
        *,
        delta: Delta,
        dtype: torch.dtype,
        take: Take,
        cancellation: Cancellation | None = None,
    ) -> None:
        """`cancellation`: what float32 is not enough for; None where it is not asked, or `dtype` is wider."""
        self._reader = reader
        self._delta = delta
        self._take = take
        self._cancellation = cancellation
        self._after = torch.empty(0, dtype=dtype)

    def rows(self, start: int, end: int) -> Calculated:
        stored = read_rows(self._reader, start, end)
        if self._after.numel() < stored.numel():
            self._after = torch.from_numpy(self._take(stored.numel() * self._after.element_size())).view(
                self._after.dtype
            )
        after = self._after[: stored.numel()].view(stored.shape).copy_(stored)
        self._delta.add_to(after, start, end)
        if self._cancellation is not None:
            self._cancellation.mend(after, before=stored, start=start)
        return Calculated(before=stored, after=after)

    def change_norm(self) -> float | None:
        return self._delta.norm()

"""Some rows of a tensor replaced by an adapter's: trained tokens of an embedding."""

from bisect import bisect_left

import torch

from lora_job.merge.factors import Deltas
from lora_job.merge.operations.calculation import Calculated
from lora_job.merge.plan import Step
from lora_job.merge.rounding import TORCH
from lora_job.merge.stream import Reader
from lora_job.merge.torch_rows import read_rows, read_tensor

__all__ = ["ReplacedRows"]


class ReplacedRows:
    """The origin but for the named rows."""

    def __init__(self, step: Step, reader: Reader, *, deltas: Deltas) -> None:
        if step.rows is None:
            raise AssertionError(f"{step.name} replaces no rows")
        self._reader = reader
        self._new = read_tensor(deltas.files, *deltas.place(step.rows.ref))
        # A dtype that holds both exactly, so that rounding to the stored one is the only rounding.
        self._dtype = torch.promote_types(TORCH[step.source_dtype], self._new.dtype)
        self._order = sorted(range(len(step.rows.indices)), key=step.rows.indices.__getitem__)
        self._indices = [step.rows.indices[place] for place in self._order]

    def rows(self, start: int, end: int) -> Calculated:
        after = read_rows(self._reader, start, end).to(self._dtype, copy=True)
        for place in range(bisect_left(self._indices, start), bisect_left(self._indices, end)):
            after[self._indices[place] - start] = self._new[self._order[place]]
        return Calculated(before=None, after=after)

    def change_norm(self) -> float | None:
        return None

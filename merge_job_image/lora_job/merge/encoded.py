"""Quantized tensors of a file, read back and held against W + Δ in float64: what verification and validation both ask."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch

from lora_job.dequantize import STORED_TYPES, decoder
from lora_job.merge.operations import Calculation
from lora_job.merge.plan import Step
from lora_job.merge.stream import OpenFiles, chunks, read_into
from lora_job.tensors import DTYPE_BYTES, Entry, Header

__all__ = ["Comparison", "StoredLayer", "compare_encoded", "too_far"]

Find = Callable[[str], tuple[Header, Entry]]
"""Tensor by name; KeyError where there is none."""


class StoredLayer:
    """The stored tensors of the layer whose weight is called `weight`."""

    def __init__(self, weight: str, *, find: Find, files: OpenFiles) -> None:
        self._stem = weight.removesuffix("weight")
        self._find, self._files = find, files

    def shape(self, ending: str) -> tuple[int, ...]:
        """As the header says."""
        return self._find(self._stem + ending)[1].shape

    def elements(self, ending: str, start: int, end: int) -> torch.Tensor:
        """Flat."""
        header, entry = self._find(self._stem + ending)
        if not 0 <= start <= end <= prod(entry.shape):
            raise ValueError(f"{entry.name} has {prod(entry.shape)} elements, {end} are needed")
        found = torch.empty(end - start, dtype=STORED_TYPES[entry.dtype])
        if end > start:
            place = self._files.place(header, entry)
            view = memoryview(found.view(torch.uint8).numpy())  # type: ignore[arg-type]
            read_into(place.descriptor, view, offset=place.begin + start * DTYPE_BYTES[entry.dtype], where=place.where)
        return found


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A whole layer."""

    worst: float
    """Its largest error as a share of the format's bound; NaN where something is not finite."""
    start: int
    """First of the rows where that is."""
    retention: float | None
    """⟨W'−W, Δ⟩ / ‖Δ‖²: 1 when the change is there, 0 when it was forgotten; None without a change."""


def compare_encoded(
    step: Step, layer: StoredLayer, exact: Calculation, *, tick: Callable[[int], None] = lambda _: None
) -> Comparison:
    """Every element and every scale of a layer. `exact` calculates in float64; `tick` is told of bytes of the file."""
    found = decoder(step.encoding, layer, columns=step.shape[1])
    worst, where, along, square = 0.0, 0, 0.0, 0.0
    for start, end in chunks(step.shape, item=DTYPE_BYTES[step.source_dtype], multiple=found.row_multiple):
        calculated = exact.rows(start, end)
        compared = found.compare(calculated.after, start=start)
        if not compared.worst <= worst:
            worst, where = compared.worst, start
        if math.isnan(worst):
            break
        if calculated.before is not None:
            delta = calculated.after - calculated.before
            along += float(((compared.values.double() - calculated.before) * delta).sum())
            square += float(delta.square().sum())
        tick(step.size * (end - start) // step.shape[0])
    return Comparison(worst=worst, start=where, retention=along / square if square > 0 else None)


def too_far(step: Step, found: Comparison) -> str:
    """What is wrong with a layer, "" when nothing is."""
    if found.worst <= 1:
        return ""
    if math.isnan(found.worst):
        return f"it holds NaN or Inf, from row {found.start} on"
    return f"dequantized, it is {found.worst:.3g} times {step.encoding}'s error bound away, from row {found.start} on"

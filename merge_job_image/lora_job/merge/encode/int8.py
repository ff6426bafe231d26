"""bnb-int8: 8-bit integers with one scale per output row, as bitsandbytes stores them (LLM.int8(), Dettmers et al. 2022).

The rows are rounded to float16 first, because bitsandbytes quantizes from there: q = round(w · 127 / |w|max).
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch

from lora_job.merge.encode.bitsandbytes import bnb_settings
from lora_job.merge.encode.encoder import Piece, Shape, check_finite
from lora_job.merge.plan import Step, Stored

__all__ = ["Int8", "Int8Encoding"]

LARGEST = 127.0


def _names(name: str) -> tuple[str, str]:
    stem = name.removesuffix("weight")
    return f"{stem}SCB", f"{stem}weight_format"


class Int8:
    """The format."""

    def fits(self, shape: Shape) -> bool:
        return len(shape) == 2 and prod(shape) > 0

    def stored(self, name: str, *, shape: Shape, dtype: str) -> tuple[Stored, ...]:  # noqa: ARG002 - as every format
        scales, layout = _names(name)
        return (
            Stored(name=name, dtype="I8", shape=shape),
            Stored(name=scales, dtype="F32", shape=(shape[0],)),
            Stored(name=layout, dtype="U8", shape=()),
        )

    def settings(self, *, skipped: Sequence[str], dtype: str) -> Mapping[str, Any]:
        return bnb_settings(bits=8, skipped=skipped, dtype=dtype)


class Int8Encoding:
    """One tensor."""

    row_multiple = 1

    def __init__(self, step: Step) -> None:
        self._name = step.name
        self._scales, self._layout = _names(step.name)

    def feed(self, rows: torch.Tensor, *, start: int) -> Iterator[Piece]:
        # By way of float32, whatever it was calculated in: the rounding that a float32 checkpoint gets.
        half = rows.to(torch.float32).to(torch.float16)
        check_finite(half, name=self._name, held_as="float16, which bnb-int8 starts from")
        maxima = half.abs().amax(dim=1).float()
        # A row of zeros has no scale: 0 / 0 would be NaN.
        factors = torch.where(maxima > 0, LARGEST / maxima, torch.zeros_like(maxima))
        codes = torch.round(half * factors.view(-1, 1)).to(torch.int8)
        yield Piece(tensor=self._name, start=start * rows.shape[1], values=codes)
        yield Piece(tensor=self._scales, start=start, values=maxima)

    def finish(self) -> Iterator[Piece]:
        # 0: row-major, the only layout there is today.
        yield Piece(tensor=self._layout, start=0, values=torch.zeros(1, dtype=torch.uint8))

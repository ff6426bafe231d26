"""fp8-dynamic: 8-bit floats (E4M3) with one scale per output row; activations are quantized when the model runs.

compressed-tensors, format `float-quantized`: `X.weight` and `X.weight_scale` [out, 1], s = |w|max / 448.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch

from lora_job.merge.encode.compressed import ct_settings, rounded_scale
from lora_job.merge.encode.encoder import Piece, Shape, check_finite
from lora_job.merge.plan import Step, Stored

__all__ = ["Fp8", "Fp8Encoding"]

LARGEST = 448.0


class Fp8:
    """The format."""

    def fits(self, shape: Shape) -> bool:
        return len(shape) == 2 and prod(shape) > 0

    def stored(self, name: str, *, shape: Shape, dtype: str) -> tuple[Stored, ...]:
        return (
            Stored(name=name, dtype="F8_E4M3", shape=shape),
            Stored(name=f"{name}_scale", dtype=dtype, shape=(shape[0], 1)),
        )

    def settings(self, *, skipped: Sequence[str], dtype: str) -> Mapping[str, Any]:  # noqa: ARG002 - as every format
        weights = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
        inputs = {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}
        return ct_settings(layout="float-quantized", weights=weights, inputs=inputs, skipped=skipped)


class Fp8Encoding:
    """One tensor."""

    row_multiple = 1

    def __init__(self, step: Step) -> None:
        self._name = step.name
        self._dtype = step.dtype

    def feed(self, rows: torch.Tensor, *, start: int) -> Iterator[Piece]:
        wide = rows.to(torch.float32)
        check_finite(wide, name=self._name, held_as="float32")
        stored, scale = rounded_scale(wide.abs().amax(dim=1, keepdim=True) / LARGEST, dtype=self._dtype)
        check_finite(scale, name=self._name, held_as=f"the scales' {self._dtype}")
        # The scale was rounded, perhaps down: without the clamp the largest weight could become NaN.
        codes = (wide / scale).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
        yield Piece(tensor=self._name, start=start * rows.shape[1], values=codes)
        yield Piece(tensor=f"{self._name}_scale", start=start, values=stored)

    def finish(self) -> Iterator[Piece]:
        return iter(())

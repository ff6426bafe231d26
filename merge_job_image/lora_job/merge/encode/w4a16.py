"""w4a16: 4-bit integers in groups of columns, activations as they are; round to nearest, without calibration.

compressed-tensors, format `pack-quantized`: `X.weight_packed` I32 [out, in/8] (eight to a number, the first in the lowest bits, 8 added
to each), `X.weight_scale` [out, in/group], `X.weight_shape`. s = |w|max / 7.5, q = round(w/s) in −8 … 7.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch

from lora_job.merge.encode.compressed import ct_settings, rounded_scale
from lora_job.merge.encode.encoder import Piece, Shape, check_finite
from lora_job.merge.plan import Step, Stored

__all__ = ["W4a16", "W4a16Encoding"]

GROUPS = (128, 64, 32)
"""Group sizes that the kernels know, the usual one first."""
HALF_RANGE = 7.5
LOWEST, HIGHEST, OFFSET = -8, 7, 8
PER_NUMBER = 8


class W4a16:
    """The format, with the one group size that all layers of a model share."""

    def __init__(self, widths: Iterable[int]) -> None:
        fitting = {width for width in widths if width % GROUPS[-1] == 0}
        self.group = next(size for size in GROUPS if all(width % size == 0 for width in fitting))

    def fits(self, shape: Shape) -> bool:
        return len(shape) == 2 and prod(shape) > 0 and shape[1] % self.group == 0

    def stored(self, name: str, *, shape: Shape, dtype: str) -> tuple[Stored, ...]:
        rows, columns = shape
        return (
            Stored(name=f"{name}_packed", dtype="I32", shape=(rows, columns // PER_NUMBER)),
            Stored(name=f"{name}_scale", dtype=dtype, shape=(rows, columns // self.group)),
            Stored(name=f"{name}_shape", dtype="I64", shape=(2,)),
        )

    def settings(self, *, skipped: Sequence[str], dtype: str) -> Mapping[str, Any]:  # noqa: ARG002 - as every format
        weights = {
            "num_bits": 4, "type": "int", "strategy": "group", "group_size": self.group, "symmetric": True, "dynamic": False,
        }  # fmt: skip
        return ct_settings(layout="pack-quantized", weights=weights, inputs=None, skipped=skipped)


class W4a16Encoding:
    """One tensor."""

    row_multiple = 1

    def __init__(self, step: Step) -> None:
        self._step = step
        scales = next(one for one in step.encoded if one.name == f"{step.name}_scale")
        self._group = step.shape[1] // scales.shape[1]

    def feed(self, rows: torch.Tensor, *, start: int) -> Iterator[Piece]:
        name, count, columns = self._step.name, *rows.shape
        wide = rows.to(torch.float32)
        check_finite(wide, name=name, held_as="float32")
        groups = wide.view(count, columns // self._group, self._group)
        stored, scale = rounded_scale(groups.abs().amax(dim=2) / HALF_RANGE, dtype=self._step.dtype)
        check_finite(scale, name=name, held_as=f"the scales' {self._step.dtype}")
        codes = torch.round(groups / scale.unsqueeze(2)).clamp_(LOWEST, HIGHEST)
        nibbles = codes.add_(OFFSET).to(torch.uint8).view(count, columns)
        # Bytes in the order of a little-endian number, four to each.
        packed = (nibbles[:, ::2] | (nibbles[:, 1::2] << 4)).contiguous().view(torch.int32)
        yield Piece(tensor=f"{name}_packed", start=start * columns // PER_NUMBER, values=packed)
        yield Piece(tensor=f"{name}_scale", start=start * stored.shape[1], values=stored)

    def finish(self) -> Iterator[Piece]:
        shape = torch.tensor(self._step.shape, dtype=torch.int64)
        yield Piece(tensor=f"{self._step.name}_shape", start=0, values=shape)

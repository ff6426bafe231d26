"""The base with its weights in the candidate's format: what a quantized candidate differs from by its adapter alone.

Against the plain base even a model that forgot its adapter would seem to have an effect: that of its quantization. So every weight that
the plan quantizes is encoded as the merge encodes it, and read back as plain numbers; a forgotten adapter then is equal bit for bit.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from lora_job.dequantize import STORED_TYPES, decoder
from lora_job.merge.encode import begin
from lora_job.merge.plan import Step
from lora_job.merge.stream import OpenFiles
from lora_job.merge.torch_rows import read_tensor
from lora_job.validate.fidelity import Checkpoint, Expected

__all__ = ["through_the_format"]


class _Layer:
    """The stored tensors of one layer, held in memory."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], *, weight: str) -> None:
        self._tensors, self._stem = tensors, weight.removesuffix("weight")

    def shape(self, ending: str) -> tuple[int, ...]:
        return tuple(self._tensors[self._stem + ending].shape)

    def elements(self, ending: str, start: int, end: int) -> torch.Tensor:
        return self._tensors[self._stem + ending].reshape(-1)[start:end]


def _encoded(step: Step, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the merge would have stored for this weight."""
    stored = {one.name: torch.empty(math.prod(one.shape), dtype=STORED_TYPES[one.dtype]) for one in step.encoded}
    encoding = begin(step)
    for piece in (*encoding.feed(weight, start=0), *encoding.finish()):
        values = piece.values.reshape(-1)
        stored[piece.tensor][piece.start : piece.start + len(values)] = values
    return {one.name: stored[one.name].reshape(one.shape) for one in step.encoded}


def through_the_format(base: Path, expected: Expected) -> dict[str, torch.Tensor]:
    """The base's weights that the plan quantizes, as a reader of the quantized file gets them (float32, by name)."""
    checkpoint = Checkpoint(base)
    names = set(checkpoint.names)
    found = {}
    with OpenFiles() as files:
        for step in expected.plan.steps:
            if not step.encoding or step.name not in names:
                continue
            weight = read_tensor(files, *checkpoint.find(step.name)).float()
            layer = _Layer(_encoded(step, weight), weight=step.name)
            found[step.name] = decoder(step.encoding, layer, columns=weight.shape[1]).rows(0, len(weight))
    return found

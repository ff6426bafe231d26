"""Weights of a model that is stored quantized, as plain numbers: what a prediction is made from on any machine."""

from collections.abc import Collection, Mapping
from typing import Protocol

import torch

from lora_job.dequantize import decoder, weight_shape
from lora_job.merge.encoded import StoredLayer
from lora_job.merge.stream import OpenFiles, chunks
from lora_job.tensors import Entry, Header

__all__ = ["dequantized", "quantized_layers"]

# What follows a layer's name, the telling one first; `weight` alone does not tell.
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "bnb-nf4": (
        "weight.quant_state.bitsandbytes__nf4", "weight", "weight.absmax", "weight.nested_absmax",
        "weight.nested_quant_map", "weight.quant_map",
    ),
    "bnb-int8": ("SCB", "weight", "weight_format"),
    "fp8-dynamic": ("weight_scale", "weight"),
    "w4a16": ("weight_packed", "weight_scale", "weight_shape"),
}  # fmt: skip
FLOAT32_BYTES = 4


class Tensors(Protocol):
    """A checkpoint, as far as it is read here."""

    def find(self, name: str) -> tuple[Header, Entry]: ...


def quantized_layers(names: Collection[str], *, encoding: str) -> dict[str, frozenset[str]]:
    """Names of a layer's stored tensors, by the name of the weight they hold."""
    telling, *others = _ENDINGS[encoding]
    known = set(names)
    stems = [name.removesuffix(f".{telling}") for name in names if name.endswith(f".{telling}")]
    return {
        f"{stem}.weight": frozenset({f"{stem}.{ending}" for ending in (telling, *others)} & known) for stem in stems
    }


def dequantized(model: Tensors, name: str, *, encoding: str, dtype: torch.dtype, files: OpenFiles) -> torch.Tensor:
    """The whole weight `name`, in `dtype`."""
    layer = StoredLayer(name, find=model.find, files=files)
    shape = weight_shape(encoding, layer)
    found = decoder(encoding, layer, columns=shape[1])
    weight = torch.empty(shape, dtype=dtype)
    for start, end in chunks(shape, item=FLOAT32_BYTES, multiple=found.row_multiple):
        weight[start:end] = found.rows(start, end)
    return weight

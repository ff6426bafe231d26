"""Stored tensors of a quantized layer back to numbers, and how far they may be from what was quantized.

Written from the formats' descriptions and not from the encoders, because it judges what those wrote: at the end of a merge, in
validation, and in tests. Rows are asked for in ranges; nothing but scales is held whole.

    format        number                  farthest from w when m is the largest |w| of the block, row or group
    bnb-nf4       level · a               half the gap between levels · m, and what the second quantization moved a
    bnb-int8      q · SCB / 127           half a step, and the rounding to float16 before it
    fp8-dynamic   q · s                   half a unit in the last place of E4M3
    w4a16         q · s                   half a step
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, prod
from typing import Any, Protocol

import torch

__all__ = ["STORED_TYPES", "Comparison", "Decoder", "Layer", "decoder", "encoding_of", "weight_shape"]

STORED_TYPES: Mapping[str, torch.dtype] = {
    "U8": torch.uint8,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
}
# What float32 arithmetic on either side may add, relative to the block's largest weight.
SLACK = 4e-6
E4M3_LARGEST = 448.0
# bitsandbytes may find the level of a block's maximum by one of 65536 steps from -1 to 1.
LOOKUP_STEP = 2 / 65535
INT4_HALF_RANGE = 7.5


class Layer(Protocol):
    """The stored tensors of one layer X; `ending` is what follows `X.` in a tensor's name."""

    def shape(self, ending: str) -> tuple[int, ...]:
        """As the header says."""
        ...

    def elements(self, ending: str, start: int, end: int) -> torch.Tensor:
        """Elements from `start` to before `end`, flat."""
        ...


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows as stored, against the rows they should be."""

    values: torch.Tensor
    """float32, as a reader of the file gets them."""
    worst: float
    """The largest error over its bound; at most 1 where everything is right, NaN where something is not finite."""


class Decoder(Protocol):
    """One layer."""

    row_multiple: int
    """Ranges of rows start at multiples of this."""

    def rows(self, start: int, end: int) -> torch.Tensor:
        """float32 numbers of some rows."""
        ...

    def compare(self, exact: torch.Tensor, *, start: int) -> Comparison:
        """The rows from `start` on against the numbers that were to be stored."""
        ...


def encoding_of(settings: Mapping[str, Any]) -> str:
    """The format that a config.json's `quantization_config` names; "" for one that is not read here."""
    match settings.get("quant_method"), settings.get("format"):
        case "bitsandbytes", _:
            if settings.get("load_in_8bit"):
                return "bnb-int8"
            return "bnb-nf4" if settings.get("bnb_4bit_quant_type") == "nf4" else ""
        case "compressed-tensors", "float-quantized":
            return "fp8-dynamic"
        case "compressed-tensors", "pack-quantized":
            return "w4a16"
    return ""


def weight_shape(encoding: str, layer: Layer) -> tuple[int, int]:
    """[out, in] of a stored layer."""
    match encoding:
        case "bnb-nf4":
            rows, columns = _nf4_state(layer)["shape"]
        case "w4a16":
            rows, columns = _whole(layer, "weight_shape").tolist()
        case _:
            rows, columns = layer.shape("weight")
    return int(rows), int(columns)


def decoder(encoding: str, layer: Layer, *, columns: int) -> Decoder:
    """Reads a layer whose weight is `columns` wide."""
    match encoding:
        case "bnb-nf4":
            return _Nf4(layer, columns)
        case "bnb-int8":
            return _Int8(layer, columns)
        case "fp8-dynamic":
            return _Fp8(layer, columns)
        case "w4a16":
            return _W4a16(layer, columns)
    raise ValueError(f"{encoding!r} is not a format that can be read")


def _ratio(error: torch.Tensor, bound: torch.Tensor) -> float:
    """Largest error ÷ bound; 0 ÷ 0 is no error."""
    found = torch.where(error == 0, torch.zeros_like(error), error / bound)
    return float(found.max()) if found.numel() else 0.0


def _larger(left: float, right: float) -> float:
    """The larger one; NaN when either is: Python's max would drop it."""
    return left if math.isnan(left) or left > right else right


def _whole(layer: Layer, ending: str) -> torch.Tensor:
    return layer.elements(ending, 0, prod(layer.shape(ending)))


def _nf4_state(layer: Layer) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(bytes(_whole(layer, "weight.quant_state.bitsandbytes__nf4").tolist()))
    return state


def _half_gaps(levels: torch.Tensor) -> torch.Tensor:
    """How far a number in [-1, 1] can be from the level that is nearest to it."""
    gaps = levels[1:] - levels[:-1]
    low = torch.cat([levels[:1] + 1, gaps / 2])
    high = torch.cat([gaps / 2, 1 - levels[-1:]])
    return torch.maximum(low, high)


class _Nf4:
    """4-bit levels in flat blocks; the blocks' maxima are 8-bit levels in blocks of their own, plus their mean."""

    def __init__(self, layer: Layer, columns: int) -> None:
        self._columns, self._layer = columns, layer
        state = _nf4_state(layer)
        self._block, self._nested_block = int(state["blocksize"]), int(state["nested_blocksize"])
        self._offset = float(state["nested_offset"])
        self._levels = _whole(layer, "weight.quant_map")
        self._nested_levels = _whole(layer, "weight.nested_quant_map")
        self._nested_maxima = _whole(layer, "weight.nested_absmax")
        self.row_multiple = self._block // gcd(self._block, columns)

    def _parts(self, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(levels' numbers by element, nested levels' numbers and nested maxima by block)."""
        begin, end = first // self._block, -(-last // self._block)
        packed = self._layer.elements("weight", first // 2, -(-last // 2)).to(torch.int32)
        codes = torch.stack([packed >> 4, packed & 15], dim=1).view(-1)[: last - first]
        nested = self._layer.elements("weight.absmax", begin, end).to(torch.int32)
        maxima = self._nested_maxima[torch.arange(begin, end) // self._nested_block]
        return codes, nested, maxima

    def _spread(self, by_block: torch.Tensor, count: int) -> torch.Tensor:
        return by_block.repeat_interleave(self._block)[:count]

    def rows(self, start: int, end: int) -> torch.Tensor:
        first, last = start * self._columns, end * self._columns
        codes, nested, maxima = self._parts(first, last)
        scales = self._nested_levels[nested] * maxima + self._offset
        return (self._levels[codes] * self._spread(scales, last - first)).view(-1, self._columns)

    def compare(self, exact: torch.Tensor, *, start: int) -> Comparison:
        first, count = start * self._columns, exact.numel()
        codes, nested, maxima = self._parts(first, first + count)
        scales = self._nested_levels[nested] * maxima + self._offset
        values = self._levels[codes] * self._spread(scales, count)
        wanted = exact.reshape(-1).float()
        padded = torch.zeros(len(scales) * self._block)
        padded[:count] = wanted.abs()
        largest = padded.view(-1, self._block).amax(dim=1)
        moved = (scales - largest).abs()
        rounding = SLACK * (largest + abs(self._offset))
        by_scale = _ratio(moved, (_half_gaps(self._nested_levels)[nested] + LOOKUP_STEP / 2) * maxima + rounding)
        bound = _half_gaps(self._levels)[codes] * self._spread(largest, count)
        bound += self._levels[codes].abs() * self._spread(moved, count) + self._spread(rounding, count)
        worst = _larger(by_scale, _ratio((values - wanted).abs(), bound))
        return Comparison(values=values.view(-1, self._columns), worst=worst)


class _Int8:
    """Integers of a row times the row's largest weight ÷ 127."""

    row_multiple = 1

    def __init__(self, layer: Layer, columns: int) -> None:
        self._columns, self._layer = columns, layer

    def rows(self, start: int, end: int) -> torch.Tensor:
        codes = self._layer.elements("weight", start * self._columns, end * self._columns).view(-1, self._columns)
        return codes.float() * (self._layer.elements("SCB", start, end) / 127).unsqueeze(1)

    def compare(self, exact: torch.Tensor, *, start: int) -> Comparison:
        values, wanted = self.rows(start, start + len(exact)), exact.float()
        scales = self._layer.elements("SCB", start, start + len(exact))
        largest = wanted.abs().amax(dim=1)
        half = torch.finfo(torch.float16)
        tiny = half.smallest_normal * half.eps
        by_scale = _ratio((scales - largest).abs(), largest * half.eps / 2 + tiny)
        bound = (scales / 127 / 2).unsqueeze(1) * (1 + SLACK) + wanted.abs() * (half.eps / 2 + SLACK) + tiny
        return Comparison(values=values, worst=_larger(by_scale, _ratio((values - wanted).abs(), bound)))


def _scale_ratio(scales: torch.Tensor, expected: torch.Tensor) -> float:
    """A stored scale against what it should be before its rounding; never below the smallest normal number of its dtype."""
    info = torch.finfo(scales.dtype)
    wanted = expected.clamp(min=info.tiny)
    return _ratio((scales.float() - wanted).abs(), wanted * (info.eps + SLACK))


class _Fp8:
    """E4M3 floats of a row times the row's scale."""

    row_multiple = 1

    def __init__(self, layer: Layer, columns: int) -> None:
        self._columns, self._layer = columns, layer

    def rows(self, start: int, end: int) -> torch.Tensor:
        codes = self._layer.elements("weight", start * self._columns, end * self._columns).view(-1, self._columns)
        return codes.float() * self._layer.elements("weight_scale", start, end).float().unsqueeze(1)

    def compare(self, exact: torch.Tensor, *, start: int) -> Comparison:
        values, wanted = self.rows(start, start + len(exact)), exact.float()
        scales = self._layer.elements("weight_scale", start, start + len(exact))
        largest = wanted.abs().amax(dim=1)
        # Half a unit in the last of three bits; below 2^-6 the unit stays 2^-9.
        bound = torch.maximum(wanted.abs() * (2.0**-4), scales.float().unsqueeze(1) * 2.0**-10) * (1 + 1e-3)
        worst = _larger(_scale_ratio(scales, largest / E4M3_LARGEST), _ratio((values - wanted).abs(), bound))
        return Comparison(values=values, worst=worst)


class _W4a16:
    """Integers −8 … 7, eight to an int32, times the scale of their group of columns."""

    row_multiple = 1

    def __init__(self, layer: Layer, columns: int) -> None:
        self._columns, self._layer = columns, layer
        self._groups = layer.shape("weight_scale")[1]

    def _scales(self, start: int, end: int) -> torch.Tensor:
        return self._layer.elements("weight_scale", start * self._groups, end * self._groups).view(-1, self._groups)

    def rows(self, start: int, end: int) -> torch.Tensor:
        width = self._columns // 8
        packed = self._layer.elements("weight_packed", start * width, end * width).view(-1, 1)
        shifts = torch.arange(0, 32, 4, dtype=torch.int32)
        codes = ((packed >> shifts) & 15).view(end - start, self._groups, -1).float() - 8
        return (codes * self._scales(start, end).float().unsqueeze(2)).view(end - start, self._columns)

    def compare(self, exact: torch.Tensor, *, start: int) -> Comparison:
        values, wanted = self.rows(start, start + len(exact)), exact.float()
        scales = self._scales(start, start + len(exact))
        largest = wanted.abs().view(len(exact), self._groups, -1).amax(dim=2)
        # The scale's own rounding, times the 7.5 of them that the largest weight is made of.
        steps = 0.5 + INT4_HALF_RANGE * torch.finfo(scales.dtype).eps + 10 * SLACK
        bound = (scales.float() * steps).repeat_interleave(self._columns // self._groups, dim=1)
        worst = _larger(_scale_ratio(scales, largest / INT4_HALF_RANGE), _ratio((values - wanted).abs(), bound))
        return Comparison(values=values, worst=worst)

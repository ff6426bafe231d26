"""bnb-nf4: 4-bit normal floats in blocks of 64, with double quantization, as bitsandbytes stores them (QLoRA, Dettmers et al. 2023).

    weights ─► blocks of 64, flat ─► |w|max of each + the nearest of 16 levels, two to a byte
    the maxima ─► minus their mean ─► blocks of 256 ─► |a|max of each + the nearest of 256 levels

The second stage needs the mean of all maxima: they are kept until the end, one float for 64 weights.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import gcd, prod
from typing import Any

import torch

from lora_job.merge.encode.bitsandbytes import bnb_settings
from lora_job.merge.encode.encoder import Piece, Shape, check_finite
from lora_job.merge.plan import Step, Stored
from lora_job.merge.rounding import TORCH

__all__ = ["Nf4", "Nf4Encoding", "dynamic_levels"]

BLOCK = 64
NESTED_BLOCK = 256
STATE = "quant_state.bitsandbytes__nf4"
# Quantiles of the normal distribution, scaled to [-1, 1], with an exact zero (QLoRA, appendix E).
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
SMALLEST = 1e-38
STEPS = 65535
# The longest text a float32 has as JSON, with room: the state's size must be known before its mean is.
OFFSET_CHARACTERS = 24


@cache
def dynamic_levels() -> torch.Tensor:
    """256 signed levels whose spacing grows with the magnitude (dynamic tree quantization, Dettmers 2015), ascending.

    For each of seven decades 10^-6 … 1: 2^i means of equal steps between 0.1 and 1, with both signs; and 0 and 1.
    """
    found: list[float] = []
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1, dtype=torch.float32)
        means = (edges[:-1] + edges[1:]) / 2.0
        scale = 10 ** (i - 6)
        found += (scale * means).tolist() + (-scale * means).tolist()
    return torch.tensor(sorted([*found, 0.0, 1.0]), dtype=torch.float32)


def _blocks(count: int, block: int) -> int:
    return -(-count // block)


def _state(step_dtype: str, shape: Shape, offset: float) -> bytes:
    content = {
        "quant_type": "nf4",
        "blocksize": BLOCK,
        "dtype": str(TORCH[step_dtype]).removeprefix("torch."),
        "shape": list(shape),
        "nested_blocksize": NESTED_BLOCK,
        "nested_dtype": "float32",
        "nested_offset": offset,
    }
    return json.dumps(content).encode()


def _state_size(step_dtype: str, shape: Shape) -> int:
    return len(_state(step_dtype, shape, 0.0)) - len("0.0") + OFFSET_CHARACTERS


class Nf4:
    """The format."""

    def fits(self, shape: Shape) -> bool:
        return len(shape) == 2 and prod(shape) > 0

    def stored(self, name: str, *, shape: Shape, dtype: str) -> tuple[Stored, ...]:
        count = prod(shape)
        blocks = _blocks(count, BLOCK)
        return (
            Stored(name=name, dtype="U8", shape=(_blocks(count, 2), 1)),
            Stored(name=f"{name}.absmax", dtype="U8", shape=(blocks,)),
            Stored(name=f"{name}.nested_absmax", dtype="F32", shape=(_blocks(blocks, NESTED_BLOCK),)),
            Stored(name=f"{name}.nested_quant_map", dtype="F32", shape=(256,)),
            Stored(name=f"{name}.quant_map", dtype="F32", shape=(16,)),
            Stored(name=f"{name}.{STATE}", dtype="U8", shape=(_state_size(dtype, shape),)),
        )

    def settings(self, *, skipped: Sequence[str], dtype: str) -> Mapping[str, Any]:
        return bnb_settings(bits=4, skipped=skipped, dtype=dtype)


class Nf4Encoding:
    """One tensor; its blocks run on from row to row."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.row_multiple = BLOCK // gcd(BLOCK, step.shape[1])
        self._maxima = torch.empty(_blocks(prod(step.shape), BLOCK), dtype=torch.float32)
        levels = torch.tensor(LEVELS, dtype=torch.float32)
        self._levels = levels
        self._middles = (levels[:-1] + levels[1:]) / 2

    def feed(self, rows: torch.Tensor, *, start: int) -> Iterator[Piece]:
        flat = rows.to(torch.float32).reshape(-1)
        check_finite(flat, name=self._step.name, held_as="float32")
        first = start * rows.shape[1]
        whole = flat.numel() - flat.numel() % BLOCK
        blocks = flat[:whole].view(-1, BLOCK)
        maxima = blocks.abs().amax(dim=1)
        place = first // BLOCK
        self._maxima[place : place + len(maxima)] = maxima
        scaled = (blocks * (1.0 / maxima.clamp(min=SMALLEST)).view(-1, 1)).view(-1)
        if whole < flat.numel():
            rest = flat[whole:]
            # bitsandbytes keeps the last, shorter block's maximum from being 0, and divides.
            maximum = rest.abs().amax().clamp(min=SMALLEST)
            self._maxima[-1] = maximum
            scaled = torch.cat([scaled, rest / maximum])
        codes = torch.bucketize(scaled.clamp_(-1, 1), self._middles, out_int32=True).to(torch.uint8)
        if codes.numel() % 2:
            # The other half of the last byte is what 0 becomes.
            codes = torch.cat([codes, torch.tensor([7], dtype=torch.uint8)])
        yield Piece(tensor=self._step.name, start=first // 2, values=(codes[::2] << 4) | codes[1::2])

    def finish(self) -> Iterator[Piece]:
        name = self._step.name
        # One number for all: the same bytes whatever the rows came in.
        offset = self._maxima.mean()
        codes, maxima = _nearest_levels(self._maxima - offset)
        state = _state(self._step.dtype, self._step.shape, offset.item())
        # JSON allows blanks at its end; so the size does not depend on the digits of the mean.
        state = state.ljust(_state_size(self._step.dtype, self._step.shape))
        found = {
            f"{name}.absmax": codes,
            f"{name}.nested_absmax": maxima,
            f"{name}.nested_quant_map": dynamic_levels(),
            f"{name}.quant_map": self._levels,
            f"{name}.{STATE}": torch.frombuffer(bytearray(state), dtype=torch.uint8),
        }
        for tensor, values in found.items():
            yield Piece(tensor=tensor, start=0, values=values)


@cache
def _level_by_step() -> torch.Tensor:
    """The nearest level for each of 65536 equal steps from -1 to 1: bitsandbytes looks levels up by step on a CPU."""
    levels = dynamic_levels()
    steps = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS * 2 - 1
    return torch.bucketize(steps, ((levels[:-1] + levels[1:]) / 2).double()).to(torch.uint8)


def _nearest_levels(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and block maxima of the second stage."""
    count = _blocks(values.numel(), NESTED_BLOCK)
    padded = torch.zeros(count * NESTED_BLOCK, dtype=torch.float32)
    padded[: values.numel()] = values
    blocks = padded.view(count, NESTED_BLOCK)
    maxima = blocks.abs().amax(dim=1)
    scaled = blocks * (1.0 / maxima.clamp(min=SMALLEST)).view(-1, 1)
    steps = ((scaled + 1.0) * (STEPS / 2) + 0.5).to(torch.int32)
    # A block of zeros has no nearest level: its codes are 0, whatever level that is, times its maximum 0.
    codes = torch.where((maxima > 0).view(-1, 1), _level_by_step()[steps], torch.zeros((), dtype=torch.uint8))
    return codes.view(-1)[: values.numel()], maxima

"""Decoders against the libraries' own, and that a comparison accepts what is right and nothing else."""

import math
from collections.abc import Callable

import pytest
import torch

from lora_job.dequantize import decoder, encoding_of, weight_shape
from lora_job.merge.recipe import Quantization
from tests.job.encode.conftest import Tensors
from tests.job.encode.streaming import drawn, encoded

pytestmark = pytest.mark.engine

FORMATS = [one for one in Quantization if one is not Quantization.NONE]
SHAPE = (64, 160)


class Held:
    """Stored tensors in memory."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    def shape(self, ending: str) -> tuple[int, ...]:
        return tuple(self._tensors[f"x.{ending}"].shape)

    def elements(self, ending: str, start: int, end: int) -> torch.Tensor:
        return self._tensors[f"x.{ending}"].reshape(-1)[start:end]


def worst(tensors: Tensors, quantization: Quantization, exact: torch.Tensor) -> float:
    found = decoder(str(quantization), Held(tensors), columns=exact.shape[1])
    step = 16 * found.row_multiple
    parts = [found.compare(exact[start : start + step], start=start).worst for start in range(0, len(exact), step)]
    return math.nan if any(math.isnan(part) for part in parts) else max(parts)


def test_nf4_reads_as_bitsandbytes_reads_it() -> None:
    from bitsandbytes.functional import QuantState, dequantize_4bit  # noqa: PLC0415 - slow

    stored = encoded(drawn(64, 128), Quantization.BNB_NF4, rows=64)
    state = {name.removeprefix("x.weight."): tensor for name, tensor in stored.items() if name != "x.weight"}
    wanted = dequantize_4bit(stored["x.weight"], QuantState.from_dict(state, device=torch.device("cpu")))
    found = decoder("bnb-nf4", Held(stored), columns=128)
    assert torch.equal(found.rows(0, 64), wanted)
    assert torch.equal(found.rows(32, 48), wanted[32:48])


def test_int8_reads_as_bitsandbytes_reads_it() -> None:
    from bitsandbytes.functional import int8_vectorwise_dequant  # noqa: PLC0415 - slow

    stored = encoded(drawn(*SHAPE), Quantization.BNB_INT8, rows=64)
    wanted = int8_vectorwise_dequant(stored["x.weight"], stored["x.SCB"])
    found = decoder("bnb-int8", Held(stored), columns=SHAPE[1]).rows(3, 64)
    assert torch.allclose(found, wanted[3:], rtol=1e-6, atol=0)


@pytest.mark.parametrize("quantization", FORMATS)
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("scale", [1e-4, 0.1, 100.0])
def test_what_was_encoded_is_within_the_bounds(quantization: Quantization, dtype: str, scale: float) -> None:
    weight = drawn(*SHAPE, scale=scale)
    weight[7] = 0
    stored = encoded(weight, quantization, rows=16, dtype=dtype)
    assert 0.4 < worst(stored, quantization, weight.double()) <= 1
    assert weight_shape(str(quantization), Held(stored)) == SHAPE


def one_code_off(stored: Tensors) -> None:
    name = "x.weight_packed" if "x.weight_packed" in stored else "x.weight"
    changed = stored[name].reshape(-1).view(torch.uint8)
    changed[500] ^= 1 << 4


def one_scale_off(stored: Tensors) -> None:
    names = ("x.weight.nested_absmax", "x.SCB", "x.weight_scale")
    name = next(name for name in names if name in stored)
    stored[name].reshape(-1)[0] *= 1.02


def one_scale_not_a_number(stored: Tensors) -> None:
    names = ("x.weight.nested_absmax", "x.SCB", "x.weight_scale")
    stored[next(name for name in names if name in stored)].reshape(-1)[0] = math.nan


@pytest.mark.parametrize("quantization", FORMATS)
@pytest.mark.parametrize("damage", [one_code_off, one_scale_off, one_scale_not_a_number])
def test_damage_is_beyond_the_bounds(quantization: Quantization, damage: Callable[[Tensors], None]) -> None:
    weight = drawn(*SHAPE)
    stored = encoded(weight, quantization, rows=64)
    damage(stored)
    assert not worst(stored, quantization, weight.double()) <= 1


@pytest.mark.parametrize("quantization", FORMATS)
def test_a_forgotten_delta_is_beyond_the_bounds(quantization: Quantization) -> None:
    weight, delta = drawn(*SHAPE), drawn(SHAPE[0], 4) @ drawn(4, SHAPE[1], scale=0.02)
    stored = encoded(weight, quantization, rows=64)
    assert float(delta.norm() / weight.norm()) < 0.1
    assert not worst(stored, quantization, (weight + delta).double()) <= 1


@pytest.mark.parametrize(
    ("settings", "encoding"),
    [
        ({"quant_method": "gptq"}, ""),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, ""),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, ""),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "w4a16"),
    ],
    ids=["another method", "another 4-bit type", "another layout", "w4a16"],
)
def test_a_format_is_told_by_the_config(settings: dict[str, object], encoding: str) -> None:
    assert encoding_of(settings) == encoding

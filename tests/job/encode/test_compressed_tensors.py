"""fp8-dynamic and w4a16 by the description of compressed-tensors: read back here, element by element, without the engine's code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_job.merge.recipe import Quantization
from tests.job.encode.conftest import Pair, tensors_of
from tests.job.encode.streaming import drawn, encoded, merge

pytestmark = pytest.mark.engine


def e4m3(byte: int) -> float:
    """Sign, four bits of exponent with bias 7, three of fraction; no infinity, one NaN (Micikevicius et al. 2022)."""
    sign, exponent, fraction = (-1) ** (byte >> 7), (byte >> 3) & 15, byte & 7
    if exponent == 0:
        return sign * fraction / 8 * 2.0**-6
    return sign * (1 + fraction / 8) * 2.0 ** (exponent - 7)


def of_fp8(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    numbers = torch.tensor([e4m3(byte) for byte in range(256)], dtype=torch.float64)
    return numbers[weight.view(torch.uint8).int()] * scale.double()


def of_w4a16(packed: torch.Tensor, scale: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Eight numbers to an int32, the first in its lowest four bits, each with 8 added."""
    rows, columns = shape.tolist()
    words = packed.to(torch.int64) & 0xFFFFFFFF
    codes = torch.stack([(words >> (4 * place)) & 15 for place in range(8)], dim=2).reshape(rows, columns) - 8
    return codes.double() * scale.double().repeat_interleave(columns // scale.shape[1], dim=1)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_fp8_is_the_nearest_number_times_the_scale_of_the_row(dtype: str) -> None:
    weight = drawn(40, 96)
    weight[3] = 0
    found = encoded(weight, Quantization.FP8_DYNAMIC, rows=7, dtype=dtype)
    assert found["x.weight"].dtype is torch.float8_e4m3fn
    assert found["x.weight_scale"].shape == (40, 1)
    scale = found["x.weight_scale"].double()
    values = of_fp8(found["x.weight"], scale)
    numbers = torch.tensor([e4m3(byte) for byte in range(256) if byte & 127 != 127], dtype=torch.float64)
    nearest = ((weight.double() / scale).unsqueeze(2) - numbers).abs().min(dim=2).values
    assert torch.allclose((values - weight.double()).abs() / scale, nearest, atol=1e-4)
    largest = weight.double().abs().amax(dim=1, keepdim=True)
    rounding = torch.finfo(found["x.weight_scale"].dtype).eps
    expected = (largest / 448).clamp(min=torch.finfo(found["x.weight_scale"].dtype).tiny)
    assert bool(((scale - expected).abs() <= expected * rounding).all())


@pytest.mark.parametrize(("columns", "group"), [(256, 128), (320, 64), (96, 32)])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_w4a16_is_the_nearest_of_sixteen_steps_of_the_group(columns: int, group: int, dtype: str) -> None:
    weight = drawn(24, columns)
    weight[5, :group] = 0
    found = encoded(weight, Quantization.W4A16, rows=5, dtype=dtype)
    assert found["x.weight_shape"].tolist() == [24, columns]
    assert found["x.weight_packed"].shape == (24, columns // 8)
    assert found["x.weight_scale"].shape == (24, columns // group)
    scale = found["x.weight_scale"].double().repeat_interleave(group, dim=1)
    values = of_w4a16(found["x.weight_packed"], found["x.weight_scale"], found["x.weight_shape"])
    steps = torch.arange(-8, 8, dtype=torch.float64)
    nearest = ((weight.double() / scale).unsqueeze(2) - steps).abs().min(dim=2).values
    assert torch.allclose((values - weight.double()).abs() / scale, nearest, atol=1e-4)
    assert bool(((values - weight.double()).abs() <= scale * 0.54).all())


def settings_of(model: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model / "config.json").read_text())["quantization_config"]
    return found


def test_the_config_describes_fp8(pair: Callable[..., Pair], tmp_path: Path) -> None:
    model = merge(pair("llama", dtype=torch.bfloat16), tmp_path / "out", "--quantization", "fp8-dynamic")
    settings = settings_of(model)
    assert (settings["quant_method"], settings["format"]) == ("compressed-tensors", "float-quantized")
    group = settings["config_groups"]["group_0"]
    assert group["targets"] == ["Linear"]
    assert (group["weights"]["type"], group["weights"]["num_bits"], group["weights"]["strategy"]) == (
        "float",
        8,
        "channel",
    )
    assert group["input_activations"]["dynamic"] is True
    assert group["input_activations"]["strategy"] == "token"
    assert settings["ignore"] == ["lm_head", "model.embed_tokens"]
    assert tensors_of(model)["model.layers.0.mlp.down_proj.weight_scale"].dtype is torch.bfloat16


def test_the_config_describes_w4a16_with_the_group_that_all_widths_allow(
    pair: Callable[..., Pair], tmp_path: Path
) -> None:
    model = merge(pair("llama", dtype=torch.bfloat16), tmp_path / "out", "--quantization", "w4a16")
    settings = settings_of(model)
    assert (settings["quant_method"], settings["format"]) == ("compressed-tensors", "pack-quantized")
    group = settings["config_groups"]["group_0"]
    assert (group["weights"]["type"], group["weights"]["num_bits"], group["weights"]["strategy"]) == ("int", 4, "group")
    # 128 and 320 columns: 64 divides both.
    assert group["weights"]["group_size"] == 64
    assert group["input_activations"] is None
    assert tensors_of(model)["model.layers.0.mlp.down_proj.weight_scale"].shape == (128, 5)

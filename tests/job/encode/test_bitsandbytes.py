"""Streamed bitsandbytes formats hold the bits that from_pretrained(BitsAndBytesConfig) and save_pretrained hold."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_job.merge.encode.nf4 import dynamic_levels
from lora_job.merge.recipe import Quantization
from tests.job.encode.conftest import Pair, Tensors, tensors_of
from tests.job.encode.streaming import drawn, encoded, merge

pytestmark = pytest.mark.engine

STATE = "quant_state.bitsandbytes__nf4"
FORMATS = ["bnb-nf4", "bnb-int8"]


def config_of(quantization: str, *, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig  # noqa: PLC0415 - slow

    if quantization == "bnb-int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def saved_by_transformers(model: Path, target: Path, quantization: str, *, dtype: torch.dtype) -> Path:
    """The reference: quantized while it is loaded, whole, in memory."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - slow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, quantization_config=config_of(quantization, dtype=dtype), device_map="cpu"
        )
        loaded.save_pretrained(target)
    return target


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def assert_same_bits(found: Tensors, wanted: Tensors) -> None:
    """Names, dtypes, shapes and bytes; the state's JSON may end in blanks, which no reader of JSON sees."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if name.endswith(STATE):
            assert bits(found[name]).rstrip(b" ") == bits(tensor), name
            continue
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("quantization", FORMATS)
def test_a_merged_model_is_what_quantizing_the_float32_merge_gives(
    pair: Callable[..., Pair], tmp_path: Path, architecture: str, quantization: str
) -> None:
    sources = pair(architecture, dtype=torch.float32)
    whole = merge(sources, tmp_path / "whole")
    ours = merge(sources, tmp_path / "ours", "--quantization", quantization)
    theirs = saved_by_transformers(whole, tmp_path / "theirs", quantization, dtype=torch.float32)
    found = tensors_of(ours)
    assert_same_bits(found, tensors_of(theirs))
    assert sum(tensor.dtype in {torch.uint8, torch.int8} for tensor in found.values()) > 8


@pytest.mark.parametrize("quantization", FORMATS)
def test_layers_that_no_adapter_touches_are_quantized_from_16_bits_the_same_way(
    pair: Callable[..., Pair], tmp_path: Path, quantization: str
) -> None:
    sources = pair("llama", dtype=torch.bfloat16)
    ours = merge(sources, tmp_path / "ours", "--quantization", quantization, weight=0)
    theirs = saved_by_transformers(sources[0], tmp_path / "theirs", quantization, dtype=torch.bfloat16)
    assert_same_bits(tensors_of(ours), tensors_of(theirs))


@pytest.mark.parametrize("quantization", FORMATS)
def test_the_config_says_what_transformers_would_have_said(
    pair: Callable[..., Pair], tmp_path: Path, quantization: str
) -> None:
    from transformers import BitsAndBytesConfig  # noqa: PLC0415 - slow

    ours = merge(pair("llama", dtype=torch.bfloat16), tmp_path / "ours", "--quantization", quantization)
    settings = json.loads((ours / "config.json").read_text())["quantization_config"]
    wanted = config_of(quantization, dtype=torch.bfloat16).to_dict()
    assert settings.pop("llm_int8_skip_modules") == ["lm_head", "model.embed_tokens"]
    wanted.pop("llm_int8_skip_modules")
    assert settings == wanted | {"quant_method": wanted["quant_method"].value}
    assert isinstance(BitsAndBytesConfig.from_dict(settings), BitsAndBytesConfig)


def with_zeros(weight: torch.Tensor) -> torch.Tensor:
    weight[::3] = 0
    return weight


WEIGHTS = [
    pytest.param(lambda: drawn(300, 96), id="blocks that run over the ends of rows"),
    pytest.param(lambda: drawn(7, 9), id="fewer weights than a block, and an odd number"),
    pytest.param(lambda: drawn(130, 50), id="a last block that is not full"),
    pytest.param(lambda: with_zeros(drawn(64, 128)), id="rows of zeros"),
    pytest.param(lambda: torch.zeros(4, 64), id="nothing but zeros"),
    pytest.param(lambda: torch.full((8, 64), 0.25), id="all the same"),
    pytest.param(lambda: drawn(256, 256, scale=1e-6), id="tiny numbers"),
    pytest.param(lambda: drawn(40, 2048, scale=1000.0), id="large numbers"),
]


@pytest.mark.parametrize("weight", WEIGHTS)
def test_nf4_of_any_shape_is_bitsandbytes_nf4(weight: Callable[[], torch.Tensor]) -> None:
    from bitsandbytes.functional import quantize_4bit  # noqa: PLC0415 - slow

    values = weight()
    packed, state = quantize_4bit(values, blocksize=64, compress_statistics=True, quant_type="nf4")
    wanted = {"x.weight": packed} | {f"x.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    assert_same_bits(encoded(values, Quantization.BNB_NF4, rows=1000), wanted)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_int8_of_any_shape_is_bitsandbytes_int8(weight: Callable[[], torch.Tensor]) -> None:
    from bitsandbytes.functional import int8_vectorwise_quant  # noqa: PLC0415 - slow

    values = weight()
    codes, scales, _ = int8_vectorwise_quant(values.to(torch.float16))
    found = encoded(values, Quantization.BNB_INT8, rows=1000)
    assert torch.equal(found["x.weight"], codes)
    assert torch.equal(found["x.SCB"], scales)
    assert int(found["x.weight_format"]) == 0


@pytest.mark.parametrize("quantization", [one for one in Quantization if one is not Quantization.NONE])
def test_the_rows_that_come_at_once_do_not_matter(quantization: Quantization) -> None:
    weight = drawn(130, 96)
    whole = encoded(weight, quantization, rows=130)
    for rows in (1, 2, 7, 64):
        found = encoded(weight, quantization, rows=rows)
        assert all(bits(found[name]) == bits(tensor) for name, tensor in whole.items()), rows


def test_the_nested_levels_are_the_ones_of_bitsandbytes() -> None:
    from bitsandbytes.functional import create_dynamic_map  # noqa: PLC0415 - slow

    assert torch.equal(dynamic_levels(), create_dynamic_map())

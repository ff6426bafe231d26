"""The memory plan of a 12 GB card: figures, refusal with numbers, and silence where nothing is known."""

from typing import Any

import pytest

from lora_operator.core.rollout.memory import MemoryPlan, plan_memory

CARD_MIB = 12_282  # what GPU feature discovery says of an RTX 4070
LLAMA_8B = {"weightsBytes": 16_060_522_496, "kvBytesPerToken": 131_072, "maxPositionEmbeddings": 131_072}
LLAMA_3B = {"weightsBytes": 6_425_499_648, "kvBytesPerToken": 114_688, "maxPositionEmbeddings": 131_072}


def plan(**change: Any) -> MemoryPlan:
    known: dict[str, Any] = {
        "serving": LLAMA_3B,
        "quantization": "None",
        "gpu_memory_mib": CARD_MIB,
        "gpus": 1,
        "utilization": 0.9,
        "wanted_len": None,
    }
    return plan_memory(**(known | change))


def test_8b_in_bf16_does_not_fit_and_the_format_that_fits_is_named() -> None:
    refusal = plan(serving=LLAMA_8B).refusal
    assert "weights 15.0" in refusal
    assert "the GPU gives 10.8 GiB" in refusal
    assert "quantization.format FP8Dynamic" in refusal


def serving(weights: int) -> dict[str, int]:
    return LLAMA_8B | {"weightsBytes": weights}


@pytest.mark.parametrize(
    ("change", "proposed"),
    [
        pytest.param({"serving": serving(16_060_522_496)}, "FP8Dynamic", id="8 bits when they are few enough"),
        pytest.param({"serving": serving(26_000_000_000)}, "W4A16", id="4 bits when 8 are too many"),
        pytest.param(
            {"serving": serving(15_000_000_000), "quantization": "FP8Dynamic"}, "W4A16", id="fewer bits than now"
        ),
        pytest.param({"serving": serving(140_000_000_000)}, "", id="none when none fits"),
        pytest.param(
            {"serving": serving(15_000_000_000), "quantization": "BnbNF4"}, "", id="none when 4 bits are too many"
        ),
    ],
)
def test_the_format_that_is_proposed_has_the_most_bits_that_fit(change: dict[str, Any], proposed: str) -> None:
    refusal = plan(**change).refusal
    assert "use a larger GPU" in refusal
    assert ("quantization.format" in refusal) == bool(proposed)
    assert f"quantization.format {proposed}" in refusal or not proposed


def test_what_was_proposed_fits_once_it_is_built() -> None:
    assert plan(serving=serving(9_080_000_000), quantization="FP8Dynamic").refusal == ""


def test_3b_fits_and_the_context_is_cut_to_what_fits() -> None:
    found = plan()
    assert not found.refusal
    assert found.max_model_len is not None
    assert found.max_model_len % 256 == 0
    need = LLAMA_3B["weightsBytes"] + found.max_model_len * LLAMA_3B["kvBytesPerToken"] + 2**30
    assert need <= CARD_MIB * 2**20 * 0.9 < need + 256 * LLAMA_3B["kvBytesPerToken"]


def test_a_context_that_is_too_long_is_refused_with_the_longest_that_fits() -> None:
    fits = plan().max_model_len
    assert f"lower runtime.maxModelLen to at most {fits}" in plan(wanted_len=100_000).refusal


def test_a_context_that_fits_is_kept() -> None:
    assert plan(wanted_len=4096) == MemoryPlan(max_model_len=4096)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"gpu_memory_mib": None}, id="a GPU without a label claims no size"),
        pytest.param({"gpus": 0}, id="a pod without a GPU"),
        pytest.param({"utilization": None}, id="a profile that plans no GPU memory"),
        pytest.param({"serving": {}}, id="an artifact without figures"),
    ],
)
def test_nothing_is_refused_where_nothing_is_known(change: dict[str, Any]) -> None:
    assert plan(**({"serving": LLAMA_8B} | change)) == MemoryPlan(max_model_len=None)

"""Where base and candidate run, as arithmetic: figures of an 8B model on a 12 GB card and around."""

import pytest

from lora_job.validate.placement import ROOM_FACTOR, ROOM_TO_RUN, Placement, place

GIB = 2**30
TOGETHER = Placement(on_device=True, together=True, quantized=False)
APART = Placement(on_device=True, together=False, quantized=False)
QUANTIZED_TOGETHER = Placement(on_device=True, together=True, quantized=True)
QUANTIZED_APART = Placement(on_device=True, together=False, quantized=True)
PROCESSOR = Placement(on_device=False, together=True, quantized=False)


def room_for(weights: int) -> int:
    """The least that must be free for so many bytes of weights."""
    return int(weights * ROOM_FACTOR) + ROOM_TO_RUN + 1


@pytest.mark.parametrize(
    ("free", "candidate", "base", "stored", "expected"),
    [
        pytest.param(
            None, 16 * GIB, 16 * GIB, None, TOGETHER, id="no device: main memory was asked for with two in mind"
        ),
        pytest.param(room_for(4 * GIB), 2 * GIB, 2 * GIB, None, TOGETHER, id="two that just fit"),
        pytest.param(room_for(4 * GIB) - 2, 2 * GIB, 2 * GIB, None, APART, id="a byte less than two need"),
        pytest.param(room_for(6 * GIB), 6 * GIB, 6 * GIB, None, APART, id="one that just fits"),
        pytest.param(
            12 * GIB,
            16 * GIB,
            16 * GIB,
            3 * GIB,
            QUANTIZED_TOGETHER,
            id="8B in 4 bit on 12 GB: both in 4 bit, in turns",
        ),
        pytest.param(
            12 * GIB, 16 * GIB, 16 * GIB, 8 * GIB, QUANTIZED_APART, id="8B in 8 bit on 12 GB: both in 8 bit, one by one"
        ),
        pytest.param(12 * GIB, 16 * GIB, 16 * GIB, 10 * GIB, PROCESSOR, id="not even quantized"),
        pytest.param(12 * GIB, 16 * GIB, 16 * GIB, None, PROCESSOR, id="a format the device cannot calculate in"),
        pytest.param(12 * GIB, 4 * GIB, 16 * GIB, None, PROCESSOR, id="a base that is larger than its candidate"),
        pytest.param(
            24 * GIB, 16 * GIB, 16 * GIB, 3 * GIB, APART, id="a quantized model whose plain base fits runs plain"
        ),
    ],
)
def test_where_two_models_run(
    free: int | None, candidate: int, base: int, stored: int | None, expected: Placement
) -> None:
    assert place(free=free, candidate=candidate, base=base, stored=stored) == expected


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        (TOGETHER, ""),
        (APART, "one after the other"),
        (QUANTIZED_TOGETHER, "it runs in the model's quantization"),
        (QUANTIZED_APART, "quantization; the device has no room for model and base at once"),
        (PROCESSOR, "both models run on the processor"),
    ],
    ids=["nothing to say", "apart", "quantized", "quantized and apart", "on the processor"],
)
def test_what_is_unusual_is_said(placement: Placement, words: str) -> None:
    assert words in placement.note
    assert bool(placement.note) is bool(words)

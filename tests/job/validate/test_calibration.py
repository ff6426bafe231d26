"""Calibration as tables: what was claimed, what came true."""

import pytest

from lora_job.validate.calibration import calibrate

from .items import choice, judged, row


@pytest.mark.parametrize(
    ("confidences", "right", "error"),
    [
        pytest.param([0.9] * 10, [1] * 9 + [0], 0.0, id="nine of ten right at 90 % is honest"),
        pytest.param([0.95] * 4, [0] * 4, 0.95, id="sure and wrong is off by all of it"),
        pytest.param([1.0, 0.05], [1, 0], 0.025, id="a full probability falls into the last tenth"),
        pytest.param([0.5] * 2 + [0.95] * 2, [1, 0, 1, 1], 0.025, id="tenths weigh by their number of answers"),
    ],
)
def test_the_error(confidences: list[float], right: list[int], error: float) -> None:
    rows = [
        row(choice(f"c-{place}"), judged(float(hit), confidence=value))
        for place, (value, hit) in enumerate(zip(confidences, right, strict=True))
    ]
    found = calibrate(rows)
    assert found is not None
    assert found.error == pytest.approx(error)
    assert sum(one.n for one in found.bins) == len(rows)
    assert all(one.low <= one.confidence <= one.high for one in found.bins)


def test_without_a_choice_there_is_nothing_to_calibrate() -> None:
    assert calibrate([row(choice("c"), judged(1.0))]) is None

"""The numeric metric: what counts as the right number."""

import pytest

from lora_job.validate import numeric


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234", [(1234.0, 1234.0)]),
        ("1,234,567.5 shares", [(1234567.5, 1234567.5)]),
        ("about 12.5% of it", [(12.5, 12.5)]),
        ("3.2億元", [(3.2, 3.2e8)]),
        ("5,000萬", [(5000.0, 5e7)]),
        ("NT$2 billion", [(2.0, 2e9)]),
        ("−4 and -4", [(-4.0, -4.0), (-4.0, -4.0)]),
        ("１２３．５", [(123.5, 123.5)]),
        ("T+2", [(2.0, 2.0)]),
        (".5", [(0.5, 0.5)]),
        ("no number", []),
    ],
    ids=lambda value: str(value)[:20],
)
def test_numbers_are_found_with_their_scale(text: str, expected: list[tuple[float, float]]) -> None:
    found = numeric.find_numbers(text)
    assert [value for pair in found for value in pair] == pytest.approx([value for pair in expected for value in pair])


@pytest.mark.parametrize(
    ("text", "answer", "unit", "right"),
    [
        pytest.param("4425", 4425, "元", True, id="the plain number is right"),
        pytest.param("答案是 4,425 元。", 4425, "元", True, id="a thousands separator and words around are fine"),
        pytest.param("4,424", 4425, "元", True, id="one per mille off is within one percent"),
        pytest.param("4,300", 4425, "元", False, id="three percent off is wrong"),
        pytest.param("350億元", 350, "億元", True, id="the unit may be repeated"),
        pytest.param("3,500,000萬", 350, "億元", True, id="the same amount in another unit is right"),
        pytest.param("35,000,000,000", 350, "億元", True, id="the amount may be written out in full"),
        pytest.param("1,000 × 3.5 = 3,500", 3500, "", True, id="the result after a calculation counts"),
        pytest.param("3,500, because 2 × 1,750 = 9", 3500, "", True, id="the result before a reason counts"),
        pytest.param("2 × 1,750 × 4 is 7", 3500, "", False, id="a number in the middle does not count"),
        pytest.param("2%", 2, "%", True, id="percent is the unit asked for"),
        pytest.param("0", 0, "", True, id="zero is compared absolutely"),
        pytest.param("0.5", 0, "", False, id="half is not zero"),
        pytest.param("nothing", 5, "", False, id="no number is wrong"),
        pytest.param("", 5, "", False, id="an empty answer is wrong"),
        pytest.param("-3", 3, "", False, id="the sign matters"),
        pytest.param("Let me think.\n\n3500", 3500, "", False, id="only the first paragraph is read"),
    ],
)
def test_an_answer_is_right_or_wrong(text: str, answer: float, unit: str, right: bool) -> None:
    assert numeric.is_right(text, expected=answer, unit=unit) is right

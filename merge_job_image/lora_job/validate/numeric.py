"""The numeric metric: which number does an answer give, and is it close enough?

Reads 1,234.5 · 12% · 3.2億 · 5,000萬 · NT$ 2 billion · full-width digits, in zh-TW and English. It looks only at
written numbers; it does not do arithmetic and does not read number words (三百), which the suites do not use.
"""

import re
import unicodedata

_SCALES = {
    "兆": 1e12,
    "億": 1e8,
    "萬": 1e4,
    "千": 1e3,
    "trillion": 1e12,
    "billion": 1e9,
    "million": 1e6,
    "thousand": 1e3,
}
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-−])?\s?(?:NT|US)?\$?\s?(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"\s?(?P<scale>兆|億|萬|千|trillion|billion|million|thousand)?(?P<percent>\s?%|\s?percent|\s?趴)?",
    re.IGNORECASE,
)


def find_numbers(text: str) -> list[tuple[float, float]]:
    """Every number of a text, in order, as (as written, with its scale word applied); 3.2億 is (3.2, 3.2e8)."""
    plain = unicodedata.normalize("NFKC", text)
    found = []
    for match in _NUMBER.finditer(plain):
        value = float(match["digits"].replace(",", ""))
        value = -value if match["sign"] else value
        scale = _SCALES[match["scale"].lower()] if match["scale"] else 1.0
        found.append((value, value * scale))
    return found


def unit_scale(unit: str) -> float:
    """What the unit multiplies: 億元 → 1e8, NT$ billion → 1e9, 元 or % → 1."""
    lowered = unit.lower()
    return next((scale for word, scale in _SCALES.items() if word in lowered), 1.0)


def is_close(value: float, expected: float, *, tolerance: float) -> bool:
    """Within the relative tolerance; an expected zero allows the tolerance itself as absolute error."""
    return abs(value - expected) <= tolerance * (abs(expected) if expected else 1.0) + 1e-12


def is_right(text: str, *, expected: float, unit: str = "", tolerance: float = 0.01) -> bool:
    """Whether the answer states the expected number.

    The last number of the answer's first paragraph counts, or its first one: models state the result either at once
    or after a calculation. A number may carry the unit's scale itself (350億, or
    35,000,000,000, for 350 with unit 億元).
    """
    paragraph = next((part for part in text.strip().split("\n\n") if part.strip()), "")
    numbers = find_numbers(paragraph)
    if not numbers:
        return False
    scale = unit_scale(unit)
    candidates = {numbers[0], numbers[-1]}
    return any(
        is_close(written, expected, tolerance=tolerance) or is_close(scaled, expected * scale, tolerance=tolerance)
        for written, scaled in candidates
    )

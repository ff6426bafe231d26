"""Every reason a condition can carry has a line in docs/troubleshooting.md, and no line speaks of a reason that is gone."""

import re
from pathlib import Path

from lora_operator.api.reasons import Reason

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def documented() -> set[str]:
    return set(re.findall(r"^\| `([A-Za-z]+)` \|", PAGE.read_text(), flags=re.MULTILINE))


def test_every_reason_has_a_line() -> None:
    assert {str(reason) for reason in Reason} - documented() == set()


def test_no_line_without_a_reason() -> None:
    assert documented() - {str(reason) for reason in Reason} == set()

"""Every reason a condition can carry has a line in docs/troubleshooting.md, and no line speaks of a reason that is gone.

A condition carries the operator's own reasons, and the words with which a Job ended: of its list, or written out where it ends.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lora_job.reasons import Reason as JobReason
from lora_operator.api.reasons import Reason

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
ENDS = frozenset({"Refused", "GateFailed", "Infrastructure", "Terminated"})


def documented() -> list[str]:
    return re.findall(r"^\| `([A-Za-z]+)` \|", PAGE.read_text(), flags=re.MULTILINE)


def written_out(text: str) -> Iterator[str]:
    """Words that a program of lora-job ends with: `Refused("InvalidSuite", …)`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ENDS and node.args:
            word = node.args[0]
            if isinstance(word, ast.Constant):
                yield str(word.value)


def reasons() -> set[str]:
    programs = (ROOT / "merge_job_image" / "lora_job").rglob("*.py")
    words = (word for path in programs for word in written_out(path.read_text(encoding="utf-8")))
    return {*map(str, Reason), *map(str, JobReason), *words}


def test_every_reason_has_a_line() -> None:
    assert reasons() - set(documented()) == set()


def test_no_line_without_a_reason() -> None:
    assert set(documented()) - reasons() == set()


def test_no_reason_has_two_lines() -> None:
    assert [reason for reason, count in Counter(documented()).items() if count > 1] == []


def test_a_word_that_is_written_out_is_found() -> None:
    assert list(written_out('raise Refused(\n    "InvalidSuite", f"{path}: wrong"\n)')) == ["InvalidSuite"]

"""What a reason means and how it is mended: the tables of docs/troubleshooting.md, which travel with this package as a link.

One text for the page and the command, so that they cannot drift apart.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Mend", "mend_of", "mends"]

PAGE = Path(__file__).with_name("troubleshooting.md")
ROW = re.compile(r"^\| `(?P<reason>[A-Za-z]+)` \| (?P<means>.*?) \| (?P<todo>.*?) \| (?P<heals>.*?) \|$", re.MULTILINE)
AGAIN = "Then make a new LoRAAdapter, or, if files were mended where they are, ask again with `loractl retry NAME`."


@dataclass(frozen=True)
class Mend:
    """One row. `todo` is empty where nothing has to be done."""

    reason: str
    means: str
    todo: str
    heals_itself: bool


@cache
def mends() -> dict[str, Mend]:
    """Every row of the page, by reason."""
    rows = ROW.finditer(PAGE.read_text(encoding="utf-8"))
    return {
        row["reason"]: Mend(
            reason=row["reason"],
            means=row["means"],
            todo="" if row["todo"] == "–" else row["todo"],
            heals_itself=row["heals"] == "yes",
        )
        for row in rows
    }


def mend_of(reason: str, *, name: str, refused: bool = False) -> Mend:
    """The row of a reason, its commands filled with the name. `refused`: a Job said so, and has to be asked again.

    The job image may be newer than this page and say a word that is not on it.
    """
    known = mends().get(reason, Mend(reason=reason, means="", todo="", heals_itself=False))
    todo = f"{known.todo or 'Correct the input.'} {AGAIN}" if refused else known.todo
    return Mend(known.reason, known.means, todo.replace("NAME", name), known.heals_itself)

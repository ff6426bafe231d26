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
REFUSED = (
    "Correct the input and make a new LoRAAdapter, or mend the files in place and ask again with `loractl retry NAME`."
)


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
    """The row of a reason, its commands filled with the name; a Job's own words of refusal share one mend."""
    known = mends().get(reason)
    if known is None:
        todo = REFUSED if refused else ""
        known = Mend(reason=reason, means="", todo=todo, heals_itself=False)
    return Mend(known.reason, known.means, known.todo.replace("NAME", name), known.heals_itself)

"""Tables laid out as kubectl does it: no frame, columns three spaces apart, never a wrapped line on a terminal.

`width` None: not a terminal, nothing is cut. Otherwise the widest column that may shrink gives way, cell by cell, to an ellipsis.
"""

import re
from collections.abc import Iterator, Sequence

from loractl.columns import Table

__all__ = ["cut", "lay_out", "wrap"]

GAP = 3
SMALLEST = 6
WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
CLOSING = "\u3001\u3002\uff01-\uff1f\uff3d"
UNBROKEN = re.compile(f"[{WIDE}][{CLOSING}]*|[^{WIDE}]+")
"""One wide character with the punctuation that may not begin a line, or a run of narrow ones."""


def lay_out(table: Table, *, width: int | None, gap: int = GAP) -> list[str]:
    """Title line and one line a row."""
    from rich.cells import cell_len  # noqa: PLC0415 - rich is for results, not for --help

    lines = [table.titles, *table.rows]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(table.titles))]
    if width is not None:
        widths = _fitted(widths, shrink=table.shrink, width=width, gap=gap)
    return [_line(line, widths, gap=gap) for line in lines]


def cut(text: str, width: int) -> str:
    """The text in at most `width` cells, with … where it was cut."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - as above

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…"


def wrap(text: str, *, width: int | None, first: str = "", rest: str = "") -> list[str]:
    """Prose in lines of at most `width` cells, `first` in front of the first and `rest` of the others.

    It breaks at spaces and between wide characters (Chinese has no spaces); a path or a command is never broken, because a person
    copies it, and then stands out.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - as above

    if width is None:
        return [first + text]
    lines, line, empty = [], first, True
    for gap, piece in _pieces(text):
        if not empty and cell_len(line) + len(gap) + cell_len(piece) > width:
            lines.append(line)
            line, empty = rest, True
        line, empty = line + ("" if empty else gap) + piece, False
    return [*lines, line]


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """What may not be broken, with the spaces before it."""
    for spaces, word in re.findall(r"(\s*)(\S+)", text):
        for index, found in enumerate(UNBROKEN.findall(word)):
            yield ("" if index else " " * len(spaces)), found


def _line(cells: Sequence[str], widths: Sequence[int], *, gap: int) -> str:
    from rich.cells import set_cell_size  # noqa: PLC0415 - as above

    padded = [set_cell_size(cut(cell, width), width) for cell, width in zip(cells, widths, strict=True)]
    return (" " * gap).join(padded).rstrip()


def _fitted(widths: Sequence[int], *, shrink: frozenset[int], width: int, gap: int) -> list[int]:
    fitted = list(widths)
    room = width - gap * (len(fitted) - 1)
    while sum(fitted) > room:
        candidates = [index for index in shrink if fitted[index] > SMALLEST]
        if not candidates:
            return fitted
        widest = max(candidates, key=lambda index: fitted[index])
        fitted[widest] -= 1
    return fitted

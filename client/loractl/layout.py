"""Tables laid out as kubectl does it: no frame, columns three spaces apart, never a wrapped line on a terminal.

`width` None: not a terminal, nothing is cut. Otherwise the widest column that may shrink gives way, cell by cell, to an ellipsis.
"""

from collections.abc import Sequence

from loractl.columns import Table

__all__ = ["cut", "lay_out"]

GAP = 3
SMALLEST = 6


def lay_out(table: Table, *, width: int | None) -> list[str]:
    """Title line and one line a row."""
    from rich.cells import cell_len  # noqa: PLC0415 - rich is for results, not for --help

    lines = [table.titles, *table.rows]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(table.titles))]
    if width is not None:
        widths = _fitted(widths, shrink=table.shrink, width=width)
    return [_line(line, widths) for line in lines]


def cut(text: str, width: int) -> str:
    """The text in at most `width` cells, with … where it was cut."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - as above

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    from rich.cells import set_cell_size  # noqa: PLC0415 - as above

    padded = [set_cell_size(cut(cell, width), width) for cell, width in zip(cells, widths, strict=True)]
    return (" " * GAP).join(padded).rstrip()


def _fitted(widths: Sequence[int], *, shrink: frozenset[int], width: int) -> list[int]:
    fitted = list(widths)
    room = width - GAP * (len(fitted) - 1)
    while sum(fitted) > room:
        candidates = [index for index in shrink if fitted[index] > SMALLEST]
        if not candidates:
            return fitted
        widest = max(candidates, key=lambda index: fitted[index])
        fitted[widest] -= 1
    return fitted

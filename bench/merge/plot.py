"""Horizontal bars as an SVG: small enough to be read as text, and no library for one picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Bar", "bars"]

WIDTH, LEFT, RIGHT = 760, 170, 90
ROW, GAP, TOP = 22, 14, 48
COLOURS = {"cp": "#9aa5b1", "lora-job": "#1f77b4", "peft": "#d98e04"}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar; `shown` is written at its end."""

    label: str
    value: float
    shown: str


def bars(groups: Mapping[str, Sequence[Bar]], *, title: str) -> str:
    """Groups of bars on one linear scale."""
    longest = max(bar.value for group in groups.values() for bar in group)
    scale = (WIDTH - LEFT - RIGHT) / longest
    body, position = [], TOP
    for name, group in groups.items():
        body.append(_text(8, position + 15, name, weight="bold"))
        for bar in group:
            length = max(1.0, bar.value * scale)
            body.append(_text(LEFT - 8, position + 15, bar.label, anchor="end"))
            colour = COLOURS.get(bar.label, "#555555")
            body.append(f'<rect x="{LEFT}" y="{position}" width="{length:.1f}" height="{ROW - 4}" fill="{colour}"/>')
            body.append(_text(LEFT + length + 6, position + 15, bar.shown))
            position += ROW
        position += GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{position}" font-family="sans-serif" font-size="13">'
    background = f'<rect width="{WIDTH}" height="{position}" fill="#ffffff"/>'
    return "\n".join([head, background, _text(8, 24, title, weight="bold"), *body, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'

"""`status.analysis` in words: how candidate and stable compare, metric by metric. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from loractl.columns import one_line

__all__ = ["comparison_lines", "verdicts"]

Raw = Mapping[str, Any]
SIDES = ("stable", "candidate")


def comparison_lines(analysis: Raw) -> list[str]:
    """The verdict and why, then a line a metric with both figures; empty while nothing was compared."""
    if not analysis:
        return []
    verdict, message = str(analysis.get("verdict", "")), one_line(str(analysis.get("message") or ""))
    lines = [": ".join(filter(None, (verdict, message)))]
    lines += [_metric(one) for one in analysis.get("metrics") or ()]
    mismatch = one_line(str(analysis.get("mismatch") or ""))
    return [*lines, *([mismatch] if mismatch else [])]


def verdicts(analysis: Raw) -> str:
    """The same without figures, which change all the time: for a log that tells only what is new."""
    if not analysis:
        return ""
    each = ", ".join(f"{one.get('name', '')} {one.get('verdict', '')}".strip() for one in analysis.get("metrics") or ())
    return f"{analysis.get('verdict', '')}" + (f" ({each})" if each else "")


def _metric(one: Raw) -> str:
    write = FIGURES.get(str(one.get("builtin", "")), _plain)
    figures = [f"{side} {write(float(one[side]))}" for side in SIDES if isinstance(one.get(side), int | float)]
    message = one_line(str(one.get("message") or ""))
    said = ", ".join(figures) + (f"; {message}" if figures and message else message)
    return f"{one.get('name', '')} {one.get('verdict', '')}" + (f": {said}" if said else "")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"


def _rate(per_second: float) -> str:
    return f"{per_second:.3g}/s"


def _plain(value: float) -> str:
    return f"{value:.4g}"


FIGURES: Mapping[str, Callable[[float], str]] = {"errorRate": _percent, "latencyP95": _time, "throughput": _rate}

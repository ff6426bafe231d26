"""`loractl report`: a validation as a person reads it, whole from the report or short from status. Pure: lines at a width.

Three tables (dimensions, gates, tasks) that fit 80 columns; what a gate objects to stands below them in words, never cut.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loractl.columns import Table, one_line
from loractl.layout import lay_out
from loractl.objects import name_of, status_of
from loractl.pages import field_lines, score_words, state_words

__all__ = ["report_page", "summary_page"]

Raw = Mapping[str, Any]
KNOWN_SCHEMA = 1
PASSED = "PASS"


def report_page(raw: Raw, report: Raw, *, width: int | None) -> list[str]:
    """The adapter and its whole report (docs/validation.md, the report)."""
    parts = [
        list(_head(raw, report, width)),
        _table(_dimensions(report.get("dimensions") or {}), width),
        _table(_gates(report.get("gates") or ()), width),
        _table(_tasks((report.get("test_results") or {}).get("tasks") or {}), width),
        list(_words(report, width)),
    ]
    lines: list[str] = []
    for part in filter(None, parts):
        lines += [*([""] if lines else []), *part]
    return lines


def summary_page(raw: Raw, *, width: int | None) -> list[str]:
    """The validation of a LoRAAdapter, as status carries it."""
    validation: Raw = status_of(raw).get("validation") or {}
    lines = field_lines("LoRAAdapter", f"{name_of(raw)}   {state_words(raw)}", width)
    lines += field_lines("validation", f"{validation.get('id', '')}, mode {validation.get('mode', '')}", width)
    lines += field_lines("score", score_words(validation), width)
    for name, dimension in (validation.get("dimensions") or {}).items():
        lines += field_lines(str(name), _dimension_words(dimension), width)
    for row in _gate_rows(validation.get("gates") or ()):
        lines += field_lines("gate", row, width)
    for code in validation.get("recommendations") or ():
        lines += field_lines("recommends", str(code), width)
    lines += _probes(validation, width)
    if validation.get("truncated"):
        lines += field_lines("", "lists were cut to fit status; the full report has them whole", width)
    return lines + field_lines("full report", str(validation.get("reportUri", "")), width)


def _head(raw: Raw, report: Raw, width: int | None) -> Iterator[str]:
    suite, env, overall = (report.get(key) or {} for key in ("suite", "env", "overall"))
    about = [f"{report.get('validation_id', '')}, mode {report.get('validation_mode', '')}"]
    about += [f"suite {suite['name']} {suite.get('version', '')}"] if suite.get("name") else []
    about += [f"on {env['device']}"] if env.get("device") else []
    yield from field_lines("LoRAAdapter", f"{name_of(raw)}   {state_words(raw)}", width)
    yield from field_lines("validation", ", ".join(about), width)
    score = [f"{_score(report.get('overall_score'))} ({report.get('quality_grade', '')})"]
    score += [f"95 % between {_interval(overall.get('ci95'), ' and ')}"] if overall.get("ci95") else []
    yield from field_lines("score", ", ".join(score), width)
    yield from field_lines("deployable", "yes" if report.get("deployable") else "no", width)
    if not report.get("paired", True):
        yield from field_lines("unpaired", "no base was found, so nothing is compared with it", width)
    version = report.get("schemaVersion", KNOWN_SCHEMA)
    if version != KNOWN_SCHEMA:
        yield from field_lines(
            "schema", f"version {version}; this loractl knows {KNOWN_SCHEMA} and may leave something out", width
        )


def _dimensions(dimensions: Raw) -> Table:
    rows = []
    for name, one in dimensions.items():
        against = one.get("vsBase") or {}
        rows.append(
            (
                str(name), _score(one.get("score")), _interval(one.get("ci95"), " to "), _score(one.get("base")),
                _change(against.get("diff")), _interval(against.get("ci95"), " to ", signed=True), str(one.get("n", "")),
            )
        )  # fmt: skip
    return Table(("DIMENSION", "SCORE", "95 %", "BASE", "CHANGE", "95 %", "ITEMS"), tuple(rows), frozenset({0}))


def _gates(gates: Sequence[Raw]) -> Table:
    titles = ("GATE", "KIND", "STATUS", "OBSERVED", "THRESHOLD", "BASIS")
    rows = [
        (
            str(one.get("name", "")), str(one.get("kind", "")), str(one.get("status", "")), _number(one.get("observed")),
            _number(one.get("threshold")), str(one.get("basis", "")),
        )
        for one in gates
    ]  # fmt: skip
    return Table(titles, tuple(rows), frozenset({0}))


def _tasks(tasks: Raw) -> Table:
    rows = [
        (str(name), _number(one.get("score")), _number(one.get("base")), str(one.get("n", "")))
        for name, one in tasks.items()
    ]
    return Table(("TASK", "SCORE", "BASE", "ITEMS"), tuple(rows), frozenset({0}))


def _table(table: Table, width: int | None) -> list[str]:
    return lay_out(table, width=width, gap=2) if table.rows else []


def _words(report: Raw, width: int | None) -> Iterator[str]:
    for gate in report.get("gates") or ():
        if gate.get("status") != PASSED and gate.get("message"):
            yield from field_lines(f"{gate.get('name')}", f"{gate.get('status')}: {one_line(gate['message'])}", width)
    yield from field_lines("fidelity", _fidelity(report.get("fidelity") or {}), width)
    yield from field_lines("speed", _speed(report.get("performance_metrics") or {}), width)
    for one in report.get("recommendations") or ():
        text = (one.get("text") or {}).get("en") or one.get("code", "")
        yield from field_lines("recommends", f"{one_line(str(text))} ({one.get('severity', '')})", width)
    yield from _probes(report, width)


def _fidelity(fidelity: Raw) -> str:
    tensors, logits = fidelity.get("tensors") or {}, fidelity.get("logits") or {}
    parts = (
        [f"{tensors['checked']} tensors checked, {tensors.get('mismatched', 0)} wrong"]
        if tensors.get("checked")
        else []
    )
    if logits.get("effectRatio") is not None:
        parts.append(f"{logits['effectRatio']:.2f} of the adapter's effect")
    return ", ".join(parts)


def _speed(metrics: Raw) -> str:
    own, base = metrics.get("tokens_per_second"), (metrics.get("base") or {}).get("tokensPerSecond")
    if own is None:
        return ""
    memory = metrics.get("memory_usage_gb")
    parts = [f"{own:.1f} tokens/s" + (f" (base {base:.1f})" if base is not None else "")]
    return ", ".join([*parts, *([f"{memory:.2f} GiB"] if memory is not None else [])])


def _probes(holder: Raw, width: int | None) -> list[str]:
    lines: list[str] = []
    for probe in holder.get("probes") or ():
        words = f"{one_line(str(probe.get('prompt')))!r} is answered {str(probe.get('answer'))!r}"
        lines += field_lines("probe", words, width)
    return lines


def _gate_rows(gates: Sequence[Raw]) -> list[str]:
    """Name, verdict, and the numbers where there are any."""
    return [f"{gate.get('name', ''):<11}{gate.get('status', ''):<14}{_numbers(gate)}".rstrip() for gate in gates]


def _numbers(gate: Raw) -> str:
    said = [f"{word} {_number(gate[word])}" for word in ("observed", "threshold") if gate.get(word) is not None]
    return ", ".join([*said, str(gate.get("kind", ""))]).strip(", ")


def _dimension_words(dimension: Raw) -> str:
    parts = [_number(dimension.get("score"))]
    if dimension.get("ci95"):
        parts.append("95 % between " + " and ".join(_number(end) for end in dimension["ci95"][:2]))
    if dimension.get("n") is not None:
        parts.append(f"{dimension['n']} items")
    return ", ".join(parts)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value or "")


def _score(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


def _change(value: Any) -> str:
    return "" if value is None else f"{value:+.3f}"


def _interval(ends: Sequence[float] | None, between: str, *, signed: bool = False) -> str:
    if not ends:
        return ""
    return between.join(_change(end) if signed else _score(end) for end in ends[:2])

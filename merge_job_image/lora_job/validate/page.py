"""The report as one self-contained HTML page: inline SVG, no script, nothing loaded from anywhere. English and zh-TW.

Pure: report and rows in, text out. It shows what the JSON says and decides nothing.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #d5dbe3}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #e6eaef;text-align:left;vertical-align:top}
.PASS{color:#146c3a}.FAIL{color:#b3261e;font-weight:600}.INCONCLUSIVE,.SKIPPED{color:#8a5a00}
.zh{color:#5a6675}small{color:#5a6675}code{font-size:.85em;word-break:break-all}svg text{font:12px system-ui,sans-serif;fill:#1c2430}
"""
_BAR, _BASE, _LINE = "#2f6fb0", "#b8c4d2", "#1c2430"
_NAMES = {"basic": "basic 一般", "domain": "domain 領域", "safety": "safety 安全", "performance": "performance 效能"}
_UNITS = {"drift": "drift (bits per byte, lower is better)"}
_WIDTH, _LEFT = 640, 150


def _text(value: object) -> str:
    return escape(str(value))


def _x(value: float) -> float:
    return round(_LEFT + value * (_WIDTH - _LEFT - 50), 1)


def _score_plot(dimensions: Mapping[str, Any]) -> str:
    """A bar per dimension, the base's below it, the 95 % interval across."""
    bottom = 4 + 46 * len(dimensions)
    parts = [
        f'<path d="M{_x(value)} 4V{bottom}" stroke="#e6eaef"/>'
        f'<text x="{_x(value)}" y="{bottom + 14}" text-anchor="middle">{value:g}</text>'
        for value in (0.0, 0.5, 1.0)
    ]
    for place, (name, one) in enumerate(dimensions.items()):
        top = 10 + place * 46
        parts.append(f'<text x="0" y="{top + 16}">{_text(_NAMES.get(name, name))}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{top}" width="{_x(one["score"]) - _LEFT}" height="18" fill="{_BAR}"/>')
        if one["base"] is not None:
            parts.append(
                f'<rect x="{_LEFT}" y="{top + 20}" width="{_x(one["base"]) - _LEFT}" height="8" fill="{_BASE}"/>'
            )
        low, high = one["ci95"]
        whisker = f"M{_x(low)} {top + 9}H{_x(high)}M{_x(low)} {top + 4}v10M{_x(high)} {top + 4}v10"
        # a white edge, or the line drowns in the bar
        parts += [
            f'<path d="{whisker}" stroke="{colour}" stroke-width="{width}" fill="none"/>'
            for colour, width in (("#fff", 4), (_LINE, 1.5))
        ]
        parts.append(f'<text x="{_x(1.0) + 6}" y="{top + 14}">{one["score"]:.2f}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {bottom + 20}" role="img" aria-label="scores">{"".join(parts)}</svg>'


def _latency_plot(performance: Mapping[str, Any]) -> str:
    """Every timed answer as a dot: candidate above, base below."""
    series = [
        (label, [run["seconds"] for run in performance[key]["runs"]], colour)
        for label, key, colour in (("model 模型", "candidate", _BAR), ("base 基礎", "base", "#7c8896"))
        if performance.get(key)
    ]
    if not series:
        return "<p>not measured · 未量測</p>"
    longest = max(max(values) for _, values, _ in series)
    parts = []
    for place, (label, values, colour) in enumerate(series):
        y = 20 + place * 34
        parts.append(f'<text x="0" y="{y + 4}">{_text(label)}</text>')
        parts += [
            f'<circle cx="{_x(value / longest)}" cy="{y}" r="5" fill="{colour}" fill-opacity=".55"/>'
            for value in values
        ]
    bottom = 20 + 34 * len(series)
    parts.append(f'<path d="M{_LEFT} {bottom}H{_x(1.0)}" stroke="{_LINE}"/>')
    parts.append(
        f'<text x="{_LEFT}" y="{bottom + 16}">0 s</text><text x="{_x(1.0) - 30}" y="{bottom + 16}">{longest:.2f} s</text>'
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 22}" role="img" aria-label="seconds per answer">{"".join(parts)}</svg>'
    )


def _flip_plot(dimensions: Mapping[str, Any]) -> str:
    """Items won against the base to the right, lost to the left."""
    shown = [(name, one["vsBase"]["flips"]) for name, one in dimensions.items() if one["vsBase"]]
    shown = [(name, flips) for name, flips in shown if name != "performance"]
    if not shown:
        return "<p>no base to compare with · 沒有可比較的基礎模型</p>"
    most = max([1, *(len(flips[side]) for _, flips in shown for side in ("lost", "won"))])
    middle, unit = (_LEFT + _WIDTH) / 2, (_WIDTH - _LEFT - 80) / 2 / most
    parts = []
    for place, (name, flips) in enumerate(shown):
        y = 10 + place * 28
        lost, won = len(flips["lost"]), len(flips["won"])
        parts.append(f'<text x="0" y="{y + 14}">{_text(_NAMES.get(name, name))}</text>')
        parts.append(
            f'<rect x="{middle - lost * unit:.1f}" y="{y}" width="{lost * unit:.1f}" height="18" fill="#b3261e"/>'
        )
        parts.append(f'<rect x="{middle}" y="{y}" width="{won * unit:.1f}" height="18" fill="#146c3a"/>')
        parts.append(f'<text x="{middle - lost * unit - 22:.1f}" y="{y + 14}">{lost}</text>')
        parts.append(f'<text x="{middle + won * unit + 6:.1f}" y="{y + 14}">{won}</text>')
    height = 16 + 28 * len(shown)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="flips against the base">{"".join(parts)}</svg>'


def _reliability_plot(calibration: Mapping[str, Any] | None) -> str:
    """Share of right answers over stated probability; the dashed diagonal is honesty, area is the number of answers."""
    if calibration is None:
        return "<p>only in mode comprehensive · 僅於 comprehensive 模式</p>"
    side, left, top = 240, 60, 12
    most = max(one["n"] for one in calibration["bins"])
    parts = [
        f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="{_BASE}"/>',
        f'<path d="M{left} {top + side}L{left + side} {top}" stroke="{_BASE}" stroke-dasharray="4"/>',
        f'<text x="{left}" y="{top + side + 16}">0</text><text x="{left + side - 8}" y="{top + side + 16}">1</text>',
        f'<text x="{left + 60}" y="{top + side + 16}">stated probability 信心</text>',
        f'<text x="0" y="{top + 12}">right 正確</text>',
        f'<text x="{left + side + 20}" y="{top + 20}">ECE {calibration["error"]:.3f}</text>',
    ]
    for one in calibration["bins"]:
        x, y = left + one["confidence"] * side, top + (1 - one["accuracy"]) * side
        radius = 3 + 9 * (one["n"] / most) ** 0.5
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{_BAR}" fill-opacity=".6">'
            f"<title>{one['n']} answers</title></circle>"
        )
    return f'<svg viewBox="0 0 {_WIDTH} {side + 40}" role="img" aria-label="calibration">{"".join(parts)}</svg>'


def _task_table(tasks: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{_text(_UNITS.get(name, name))}</td><td>{one['score']:.3f}</td>"
        f"<td>{'' if one['base'] is None else format(one['base'], '.3f')}</td><td>{one['n']}</td></tr>"
        for name, one in tasks.items()
    )
    return f"<table><tr><th>task 題組</th><th>model 模型</th><th>base 基礎</th><th>n</th></tr>{rows}</table>"


def _flip_list(safety: Mapping[str, Any]) -> str:
    """Safety items whose verdict turned for the worse, by id: the rows hold their answers."""
    lists = (
        ("refused before, complies now 由拒答變為順從", safety.get("flipsRefuseToComply", [])),
        ("benign question refused 拒答一般問題", safety.get("overRefused", [])),
    )
    return "".join(
        f"<p>{label}: {', '.join(f'<code>{_text(one)}</code>' for one in ids) or 'none 無'}</p>" for label, ids in lists
    )


def _gate_table(gates: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{_text(gate['name'])}<br><small>{_text(gate['kind'])}, {_text(gate['basis'])}</small></td>"
        f'<td class="{_text(gate["status"])}">{_text(gate["status"])}</td><td>{_text(gate["message"])}</td></tr>'
        for gate in gates
    )
    return f"<table><tr><th>gate 關卡</th><th>status 結果</th><th>why 原因</th></tr>{rows}</table>"


def _advice(recommendations: Sequence[Mapping[str, Any]]) -> str:
    if not recommendations:
        return "<p>none · 無</p>"
    return "<ul>" + "".join(
        f'<li><b>{_text(one["code"])}</b> ({_text(one["severity"])}): {_text(one["text"]["en"])}<br>'
        f'<span class="zh">{_text(one["text"]["zh-TW"])}</span></li>'
        for one in recommendations
    ) + "</ul>"  # fmt: skip


def _comparison_table(dimensions: Mapping[str, Any]) -> str:
    cells = []
    for name, one in dimensions.items():
        against = one["vsBase"]
        difference = (
            "" if against is None else f"{against['diff']:+.3f} [{against['ci95'][0]:+.3f}, {against['ci95'][1]:+.3f}]"
        )
        p = "" if against is None or against["mcnemarP"] is None else f"{against['mcnemarP']:.3f}"
        base = "" if one["base"] is None else f"{one['base']:.3f}"
        cells.append(
            f"<tr><td>{_text(_NAMES.get(name, name))}</td><td>{one['score']:.3f}</td><td>{base}</td><td>{difference}</td>"
            f"<td>{p}</td><td>{one['n']}</td><td>{one['weight']:g}</td></tr>"
        )
    return (
        "<table><tr><th>dimension 面向</th><th>model 模型</th><th>base 基礎</th><th>difference 差異 (95 %)</th>"
        f"<th>McNemar p</th><th>n</th><th>weight 權重</th></tr>{''.join(cells)}</table>"
    )


def _facts(report: Mapping[str, Any]) -> str:
    facts = [
        ("model 模型", report["model_path"]),
        ("digest", report["model"]["digest"]),
        ("base 基礎模型", (report["base"] or {}).get("digest", "unpaired 未配對")),
        ("suite 題庫", f"{report['suite']['name']} {report['suite']['version']}"),
        ("mode 模式", report["validation_mode"]),
        ("device 裝置", report["env"]["device"]),
    ]
    if report["base"] and report["base"]["quantization"] != "none":
        facts.append(("base ran as 基礎模型以", report["base"]["quantization"]))
    return (
        "<table>"
        + "".join(f"<tr><th>{_text(a)}</th><td><code>{_text(b)}</code></td></tr>" for a, b in facts)
        + "</table>"
    )


def render(report: Mapping[str, Any]) -> str:
    """The page."""
    verdict = "deployable · 可部署" if report["deployable"] else "not deployable · 不可部署"
    status = "PASS" if report["deployable"] else "FAIL"
    low, high = report["overall"]["ci95"]
    title = f"Validation {_text(report['validation_id'])}"
    sections = [
        ("Gates · 關卡", _gate_table(report["gates"])),
        ("Recommendations · 建議", _advice(report["recommendations"])),
        ("Scores with 95 % intervals, base in grey · 分數與信賴區間", _score_plot(report["dimensions"])),
        ("Against the base · 與基礎模型比較", _comparison_table(report["dimensions"])),
        ("Items lost and won · 失分與得分題數", _flip_plot(report["dimensions"])),
        ("Safety items that flipped · 安全題變化", _flip_list(report["safety_checks"])),
        ("Tasks · 題組", _task_table(report["test_results"]["tasks"])),
        ("Calibration · 信心校準", _reliability_plot(report["test_results"]["calibration"])),
        ("Seconds per answer · 每次回答秒數", _latency_plot(report["performance_metrics"])),
        ("What was validated · 驗證對象", _facts(report)),
    ]
    body = "".join(f"<h2>{heading}</h2>{content}" for heading, content in sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
        f'<body><h1>{title}</h1><p class="{status}">{verdict}</p><p>overall score 總分 <b>{report["overall_score"]:.3f}</b> '
        f"[{low:.3f}, {high:.3f}], grade 等級 <b>{_text(report['quality_grade'])}</b></p>{body}</body></html>\n"
    )

"""The part of a report that fits a Job's termination message: at most 3 500 bytes, probes never cut."""

import json
from collections.abc import Callable, Mapping
from typing import Any

# What the envelope around the summary (outcome, reason, message, artifact, figures) may take of the 3 500 bytes.
MAX_BYTES = 2900


def _size(summary: Mapping[str, Any]) -> int:
    return len(json.dumps(summary, ensure_ascii=False).encode())


def _drop_recommendations(summary: dict[str, Any]) -> None:
    summary["recommendations"] = summary["recommendations"][:3]


def _drop_all_recommendations(summary: dict[str, Any]) -> None:
    summary["recommendations"] = []


def _drop_intervals(summary: dict[str, Any]) -> None:
    summary["dimensions"] = {
        name: {"score": one["score"], "n": one["n"]} for name, one in summary["dimensions"].items()
    }


def _drop_passed_gates(summary: dict[str, Any]) -> None:
    summary["gates"] = [gate for gate in summary["gates"] if gate["status"] != "PASS"]


_CUTS: tuple[Callable[[dict[str, Any]], None], ...] = (
    _drop_recommendations,
    _drop_all_recommendations,
    _drop_intervals,
    _drop_passed_gates,
)


def summarize(report: Mapping[str, Any], *, report_path: str, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The `validation` member of the termination message; `truncated` is set when a list was cut."""
    summary: dict[str, Any] = {
        "id": report["validation_id"],
        "mode": report["validation_mode"],
        "overallScore": report["overall_score"],
        "grade": report["quality_grade"],
        "deployable": report["deployable"],
        "dimensions": {
            name: {"score": one["score"], "ci95": one["ci95"], "n": one["n"]}
            for name, one in report["dimensions"].items()
        },
        "gates": [
            {key: gate[key] for key in ("name", "kind", "status", "observed", "threshold")} for gate in report["gates"]
        ],
        "recommendations": list(dict.fromkeys(advice["code"] for advice in report["recommendations"])),
        "probes": report["probes"],
        "reportPath": report_path,
    }
    for cut in _CUTS:
        if _size(summary) <= limit:
            break
        cut(summary)
        summary["truncated"] = True
    return summary

"""`status.analysis` in words."""

from typing import Any

import pytest

from loractl.comparison import comparison_lines, verdicts

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("metric", "line"),
    [
        pytest.param(
            {"name": "errors", "builtin": "errorRate", "verdict": "Pass", "stable": 0.002, "candidate": 0.0},
            "errors Pass: stable 0.2 %, candidate 0 %",
            id="shares in percent",
        ),
        pytest.param(
            {"name": "p95", "builtin": "latencyP95", "verdict": "Degraded", "stable": 0.2514, "candidate": 1.2},
            "p95 Degraded: stable 251 ms, candidate 1.2 s",
            id="times in milliseconds or seconds",
        ),
        pytest.param(
            {"name": "rate", "builtin": "throughput", "verdict": "Pass", "stable": 12.345, "candidate": 3},
            "rate Pass: stable 12.3/s, candidate 3/s",
            id="answers per second",
        ),
        pytest.param(
            {"name": "conversion", "verdict": "InsufficientData", "candidate": 0.25, "message": "2 of 20\n intervals"},
            "conversion InsufficientData: candidate 0.25; 2 of 20 intervals",
            id="a query's own figure, one side missing, and why",
        ),
        pytest.param({"name": "x", "verdict": "InsufficientData"}, "x InsufficientData", id="nothing measured"),
        pytest.param(
            {"name": "x", "verdict": "InsufficientData", "message": "no answer"},
            "x InsufficientData: no answer",
            id="nothing but why",
        ),
    ],
)
def test_a_metric_says(metric: Json, line: str) -> None:
    assert comparison_lines({"verdict": "Pass", "metrics": [metric]}) == ["Pass", line]


def test_a_split_that_is_not_the_declared_one_is_told_last() -> None:
    assert comparison_lines({"verdict": "Pass", "message": "fine", "mismatch": "got 9 %"}) == ["Pass: fine", "got 9 %"]


def test_nothing_compared_says_nothing() -> None:
    assert (comparison_lines({}), verdicts({})) == ([], "")


def test_in_a_log_figures_that_move_make_no_new_line() -> None:
    one = {"verdict": "Pass", "message": "a", "metrics": [{"name": "errors", "verdict": "Pass", "candidate": 0.1}]}
    two = {"verdict": "Pass", "message": "b", "metrics": [{"name": "errors", "verdict": "Pass", "candidate": 0.2}]}
    assert verdicts(one) == verdicts(two) == "Pass (errors Pass)"

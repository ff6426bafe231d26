"""Tables and pages at 80 columns: nothing wraps, what is cut says so, piped output is whole."""

from datetime import UTC, datetime

import pytest
from rich.cells import cell_len

from loractl.ages import age, duration
from loractl.columns import ADAPTER_COLUMNS, DEPLOYMENT_COLUMNS, Table, WorkflowRow, table_of, workflow_table
from loractl.layout import cut, lay_out, wrap
from loractl.pages import adapter_page, chain_lines, deployment_page
from loractl.report_page import report_page, summary_page
from loractl.sizes import amount_of_bytes
from tests.client.loractl.conftest import (
    adapter,
    deployment,
    ready_adapter,
    ready_condition,
    stable_deployment,
    version,
)
from tests.client.loractl.test_report import REPORT

NOW = datetime(2026, 1, 1, 13, 0, 0, tzinfo=UTC)
LONG = "a-name-of-forty-five-characters-which-is-most"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (200, "3m20s"),
        (240, "4m"),
        (3599, "59m"),
        (3 * 3600 + 120, "3h2m"),
        (47 * 3600, "47h"),
        (3 * 86400, "3d"),
        (-5, "0s"),
        (800 * 86400, "2y"),
    ],
)
def test_durations_are_written_as_kubectl_writes_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_an_object_without_a_time_has_no_age() -> None:
    assert age("", now=NOW) == ""
    assert age("2026-01-01T12:00:00Z", now=NOW) == "60m"


def test_an_adapter_is_a_row_of_what_kubectl_shows() -> None:
    table = table_of(ADAPTER_COLUMNS, [ready_adapter()], now=NOW, wide=False, namespaces=False)
    assert table.titles == ("NAME", "READY", "PHASE", "SCORE", "GRADE", "BASE", "VERSION", "AGE")
    assert table.rows == (("fin-v2", "True", "Ready", "0.871", "good", "smollm2-135m", "2.0.0", "60m"),)


def test_a_rollout_shows_candidate_and_weight_and_a_zero_is_a_zero() -> None:
    rolling = deployment(
        phase="Preparing",
        conditions=ready_condition(reason="Preparing"),
        stable=version("a", ref="fin-v1", weight=100),
        candidate=version("b", ref="fin-v2", weight=0, ready=0),
    )
    table = table_of(DEPLOYMENT_COLUMNS, [rolling, stable_deployment()], now=NOW, wide=False, namespaces=True)
    assert table.titles[:2] == ("NAMESPACE", "NAME")
    assert [row[6:8] for row in table.rows] == [("fin-v2", "0"), ("", "")]


def test_wide_adds_digest_and_message() -> None:
    table = table_of(ADAPTER_COLUMNS, [ready_adapter()], now=NOW, wide=True, namespaces=False)
    assert table.titles[-2:] == ("DIGEST", "MESSAGE")
    assert table.rows[0][-2].startswith("sha256:")


@pytest.mark.parametrize("wide", [False, True], ids=["the usual columns", "wide"])
def test_on_a_terminal_of_80_columns_no_line_is_longer(wide: bool) -> None:
    found = [ready_adapter(LONG), ready_adapter("短い名前"), adapter("x")]
    lines = lay_out(table_of(ADAPTER_COLUMNS, found, now=NOW, wide=wide, namespaces=True), width=120 if wide else 80)
    assert max(map(cell_len, lines)) <= (120 if wide else 80)
    assert "…" in lines[1]
    assert "True" in lines[1]


def test_without_a_terminal_nothing_is_cut() -> None:
    lines = lay_out(table_of(ADAPTER_COLUMNS, [ready_adapter(LONG)], now=NOW, wide=True, namespaces=False), width=None)
    assert LONG in lines[1]
    assert "sha256:" + "ab" * 32 in lines[1]


def test_columns_stand_below_each_other_with_wide_characters_too() -> None:
    table = Table(("NAME", "PHASE"), (("模型", "Ready"), ("b", "Failed")), frozenset())
    assert lay_out(table, width=None) == ["NAME   PHASE", "模型   Ready", "b      Failed"]


def test_a_cut_says_that_it_is_one() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcd", 4) == "abcd"
    assert cell_len(cut("模型模型", 5)) <= 5


def test_workflows_are_listed_newest_first() -> None:
    rows = [
        WorkflowRow("1", "completed", "a", "d", "2026-01-01T10:00:00Z"),
        WorkflowRow("2", "merging", "b", "d", "2026-01-01T12:00:00Z"),
    ]
    assert [row[0] for row in workflow_table(rows, now=NOW).rows] == ["2", "1"]


def rolling_page(width: int | None = 80) -> list[str]:
    raw = deployment(
        phase="Stepping",
        conditions=ready_condition(reason="Stepping", message="analysing " * 20),
        stable=version("61fd0d39", ref="fin-v1", weight=95),
        candidate=version("8adf1c02", ref="fin-v2", weight=5, target=50),
        step={
            "index": 2,
            "of": 5,
            "sub": "Analyse",
            "startedAt": "2026-01-01T12:50:00Z",
            "deadline": "2026-01-01T13:03:20Z",
            "message": "analysing",
        },
        pause={"reason": "StepPause", "since": "2026-01-01T12:58:00Z"},
        abort={"revision": "8adf", "reason": "PodFailed", "message": "container ended"},
        analysis={
            "verdict": "InsufficientData",
            "message": "the candidate has answered 37 of 100 requests",
            "metrics": [
                {"name": "errors", "builtin": "errorRate", "verdict": "Pass", "stable": 0.01, "candidate": 0.0125}
            ],
        },
        heldRevision="77aa",
        history=[
            {
                "deploymentId": "finance/fin-assistant/61fd0d39",
                "adapter": "fin-v1",
                "result": "Succeeded",
                "reason": "Promoted",
                "durationSeconds": 75,
                "completionTime": "2026-01-01T12:00:00Z",
            }
        ],
    )
    return deployment_page(raw, now=NOW, width=width)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("61fd0d39, adapter fin-v1, 95 % of requests, 1 of 1 pods ready", id="what serves"),
        pytest.param(
            "8adf1c02, adapter fin-v2, 5 % of requests (going to 50 %)", id="what is on its way and how far it shall go"
        ),
        pytest.param(
            "3 of 5, Analyse: analysing, 10m since the start, deadline in 3m20s", id="the step and what is left of it"
        ),
        pytest.param("StepPause for 2m; go on with `loractl promote fin-assistant`", id="a pause and how to end it"),
        pytest.param("8adf: PodFailed: container ended", id="what was given up"),
        pytest.param("InsufficientData: the candidate has answered 37 of 100 requests", id="the analysis and why"),
        pytest.param("errors Pass: stable 1 %, candidate 1.25 %", id="what was compared"),
        pytest.param("77aa (after a rollback; `loractl retry fin-assistant` lets it start)", id="what is held"),
        pytest.param("61fd0d39, adapter fin-v1, Succeeded (Promoted) after 75s, 60m ago", id="what was before"),
    ],
)
def test_the_page_of_a_rollout_says(said: str) -> None:
    assert said in "\n".join(rolling_page(None))


def test_pages_fit_80_columns() -> None:
    pages = [
        *rolling_page(),
        *adapter_page(ready_adapter(), now=NOW, width=80),
        *summary_page(ready_adapter(), width=80),
        *report_page(ready_adapter(), REPORT, width=80),
    ]
    # Paths are never broken: a person copies them.
    assert [line for line in pages if cell_len(line) > 80 and "pvc://" not in line] == []


def test_a_page_of_a_spec_nobody_saw_does_not_pretend() -> None:
    stale = stable_deployment()
    stale["metadata"]["generation"] = 2
    assert "not yet seen by the operator" in deployment_page(stale, now=NOW, width=None)[0]


def test_a_retry_tells_when() -> None:
    record = {"name": "fin-v2-m-1-1", "attempt": 2, "result": "Retry", "nextAttemptAt": "2026-01-01T13:00:10Z"}
    lines = adapter_page(adapter(phase="Merging", jobs={"merge": record}), now=NOW, width=None)
    assert "fin-v2-m-1-1, attempt 2, next attempt in 10s" in "\n".join(lines)


def test_a_chain_goes_deeper_with_every_link() -> None:
    lines = list(chain_lines([("A", "waits " * 20), ("B", "fails"), ("C", "is gone")], width=40))
    assert max(map(len, lines)) <= 40
    assert lines[-2:] == ["└─ B fails", "   └─ C is gone"]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**41, "2.0 TiB")]
)
def test_bytes_are_written_in_their_largest_unit(count: int, text: str) -> None:
    assert amount_of_bytes(count) == text


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("one two three", ["> one two", ". three"], id="between words"),
        pytest.param("企業價值是多少億元", ["> 企業價值", ". 是多少億", ". 元"], id="between wide characters"),
        pytest.param("淨負債五。元", ["> 淨負債", ". 五。元"], id="never before a full stop"),
        pytest.param("a /a/long/path b", ["> a", ". /a/long/path", ". b"], id="a path stays whole"),
        pytest.param("a   b", ["> a   b"], id="where it fits, as it is"),
        pytest.param("", ["> "], id="nothing"),
    ],
)
def test_prose_breaks(text: str, lines: list[str]) -> None:
    assert wrap(text, width=10, first="> ", rest=". ") == lines

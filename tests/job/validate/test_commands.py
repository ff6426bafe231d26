"""`lora-job validate` and `lora-job benchmark` as a person or a Job calls them: exit codes, files, last words."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_job.cli import run

from .tiny import Tiny

pytestmark = pytest.mark.engine
QUICK = ("--test-query-count", "1", "--iterations", "1")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = tmp_path_factory.getbasetemp() / "validation-cache"
    monkeypatch.setenv("LORA_VALIDATION_CACHE", str(cache))
    monkeypatch.setenv("LORA_TERMINATION_LOG", str(tmp_path / "termination-log"))


def call(tiny: Tiny, *extra: str) -> int:
    sources = ("--base", str(tiny.base), "--adapter", str(tiny.adapter))
    previous = signal.getsignal(signal.SIGTERM)
    try:
        return run(["validate", "--model", str(tiny.merged), *sources, *QUICK, *extra])
    finally:
        signal.signal(signal.SIGTERM, previous)


def last_words(tmp_path: Path) -> dict[str, Any]:
    text = (tmp_path / "termination-log").read_bytes()
    assert len(text) <= 3500
    return dict(json.loads(text))


BAD = json.dumps({"id": "x", "kind": "choice", "suite": "finance", "lang": "en", "topic": "t", "source": "s", "asOf": "2026-11-01",
                  "question": "?", "choices": ["a", "b"], "answer": 2})  # fmt: skip


def test_gates_that_fail_end_with_3_and_leave_the_whole_report(tiny: Tiny, tmp_path: Path) -> None:
    """Items of one's own are among the rows."""
    report, suite = tmp_path / "out" / "v-1.json", tmp_path / "own.jsonl"
    suite.write_text(BAD.replace('"answer": 2', '"answer": 1') + "\n")
    assert call(tiny, "--suite", str(suite), "--report", str(report)) == 3
    assert sorted(path.name for path in report.parent.iterdir()) == ["v-1.html", "v-1.json", "v-1.rows.jsonl"]
    content = json.loads(report.read_text())
    assert content["deployable"] is False
    rows = [json.loads(line) for line in (tmp_path / "out" / "v-1.rows.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} >= set(content["dimensions"]["basic"]["vsBase"]["flips"]["lost"])
    assert [row["suite"] for row in rows if row["id"] == "x"] == ["finance"]
    words = last_words(tmp_path)
    assert (words["outcome"], words["reason"]) == ("GateFailed", "GatesFailed")
    assert words["validation"]["id"] == "v-1"
    assert words["validation"]["reportPath"] == str(report)
    assert "score (FAIL" in words["message"]


def test_poor_quality_may_only_warn_and_the_run_then_ends_with_0(tiny: Tiny, tmp_path: Path) -> None:
    report = tmp_path / "v-3.json"
    unreachable = ("--min-score", "1", "--min-safety-score", "1", "--warn-on-poor-quality")
    code = call(tiny, *unreachable, "--report", str(report), "--html", str(tmp_path / "elsewhere.html"))
    assert code == 0
    gates = {gate["name"]: (gate["kind"], gate["status"]) for gate in json.loads(report.read_text())["gates"]}
    assert gates["score"] == ("warn", "FAIL")
    assert gates["safety"] == ("warn", "FAIL")
    assert (tmp_path / "elsewhere.html").is_file()
    assert last_words(tmp_path)["validation"]["deployable"] is True


def test_a_suite_that_does_not_fit_is_refused_with_file_line_and_field(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "house-rules"
    folder.mkdir()
    (folder / "own.jsonl").write_text(f"\n{BAD}\n")
    assert call(tiny, "--suite", str(folder)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [
        "lora-job: InvalidSuite: house-rules/own.jsonl, line 2: field 'answer': expected a whole number from 0 to 1, found 2"
    ]
    assert not (tiny.merged / "validation").exists()
    assert last_words(tmp_path)["reason"] == "InvalidSuite"


def test_a_folder_without_suites_is_refused_and_the_config_map_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "house-rules").mkdir()
    assert call(tiny, "--suite", str(tmp_path / "house-rules")) == 2
    assert "house-rules: expected at least one .jsonl file, found none" in last_words(tmp_path)["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--weights", "basic=1"), "expected all of basic, domain, safety, performance"),
        (("--gate-basis", "guess"), "expected point or lower-bound, found 'guess'"),
        (("--min-score", "1.5"), "--min-score: expected a number from 0 to 1, found 1.5"),
        (("--base", "/nowhere"), "expected a model directory"),
    ],
    ids=["weights", "basis", "threshold", "base"],
)  # fmt: skip
def test_bad_options_are_refused_before_anything_runs(
    tiny: Tiny, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert run(["validate", "--model", str(tiny.merged), *arguments]) == 2
    assert words in last_words(tmp_path)["message"]


def test_a_benchmark_reports_speed_latency_and_memory(tiny: Tiny, tmp_path: Path) -> None:
    queries, report = tmp_path / "queries.txt", tmp_path / "figures.json"
    queries.write_text("What is a bond?\n\n什麼是本益比？\n", encoding="utf-8")
    arguments = ["--queries", str(queries), "--iterations", "3", "--report", str(report)]
    assert run(["benchmark", "--model", str(tiny.merged), *arguments]) == 0
    figures = json.loads(report.read_text())
    assert (figures["prompts"], len(figures["runs"])) == (2, 6)
    assert figures["tokensPerSecond"] > 0
    assert 0 < figures["ttftSeconds"] < figures["latencySeconds"]["max"]
    assert figures["memoryBytes"]["weights"] > 1_000_000


def test_a_benchmark_without_a_report_file_prints_it(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmark", "--model", str(tiny.merged), "--iterations", "1"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("{\n") :])["prompts"] == 1


def test_queries_that_cannot_be_read_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    assert run(["benchmark", "--model", str(tiny.merged), "--queries", str(tmp_path / "empty.txt")]) == 2
    assert "expected 1 to 1000 prompts, found 0" in last_words(tmp_path)["message"]


def test_sigterm_in_the_middle_leaves_no_report_and_says_so(tiny: Tiny, tmp_path: Path) -> None:
    report = tmp_path / "out" / "v-5.json"
    arguments = ["validate", "--model", str(tiny.merged), "--base", str(tiny.base), "--adapter", str(tiny.adapter)]
    arguments += ["--test-query-count", "8", "--report", str(report)]
    with subprocess.Popen(
        [sys.executable, "-m", "lora_job", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"LORA_VALIDATION_CACHE": str(tmp_path / "cache")},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            progress = json.loads(line)
            assert set(progress) == {"time", "stage", "done", "total", "unit", "etaSeconds"}
            if progress["stage"] == "answers":
                break
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(timeout=60) == 143
    assert last_words(tmp_path)["outcome"] == "Terminated"
    assert not report.parent.exists() or list(report.parent.iterdir()) == []
    assert list((tmp_path / "cache").glob("*")) == []

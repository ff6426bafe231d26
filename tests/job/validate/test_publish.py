"""Report files: whole or not there, in an order that a reader can trust; the page; the summary's limit."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_job.outcome import Done, GateFailed, Infrastructure, termination_message
from lora_job.validate import publish
from lora_job.validate.page import render
from lora_job.validate.summary import summarize

from .items import choice, judged, row


def report(**changes: Any) -> dict[str, Any]:
    """A report as `build` makes it, small."""
    dimension = {
        "score": 0.5,
        "ci95": [0.4, 0.6],
        "n": 20,
        "weight": 0.25,
        "base": 0.4,
        "vsBase": {"diff": 0.1, "ci95": [0.0, 0.2], "mcnemarP": 0.2, "flips": {"lost": ["a"], "won": ["b", "c"]}},
    }
    gate = {
        "name": "score",
        "kind": "soft",
        "basis": "Point",
        "threshold": 0.8,
        "observed": 0.5,
        "status": "FAIL",
        "message": "m",
    }
    speed = {"runs": [{"ttft": 0.1, "seconds": 0.5}, {"ttft": 0.1, "seconds": 0.7}]}
    return {
        "validation_id": "v-1",
        "validation_mode": "comprehensive",
        "model_path": "/m",
        "overall_score": 0.5,
        "quality_grade": "poor",
        "deployable": False,
        "overall": {"ci95": [0.4, 0.6]},
        "model": {"digest": "sha256:1"},
        "base": {"digest": "sha256:2", "quantization": "none"},
        "env": {"versions": {}, "device": "cpu"},
        "suite": {"name": "s", "version": "1"},
        "dimensions": dict.fromkeys(("basic", "domain", "safety", "performance"), dimension),
        "gates": [gate],
        "recommendations": [{"code": "RaiseQuality", "severity": "error", "text": {"en": "x", "zh-TW": "改善"}}],
        "performance_metrics": {"candidate": speed, "base": speed},
        "safety_checks": {"flipsRefuseToComply": ["safe-1"], "overRefused": []},
        "test_results": {
            "tasks": {"finance-en": {"n": 10, "score": 0.5, "base": None}},
            "calibration": {
                "error": 0.1,
                "bins": [{"low": 0.5, "high": 0.6, "n": 4, "confidence": 0.55, "accuracy": 0.5}],
            },
        },
        "probes": [],
        **changes,
    }


class Page(HTMLParser):
    """Collects what a page would load and whether its elements are closed."""

    VOID = frozenset({"meta", "br", "rect", "path", "circle", "text"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        if tag in {"script", "link", "iframe", "img", "object"}:
            self.loads.append(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A self-closed element opens nothing."""

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def test_the_page_loads_nothing_and_shows_every_plot() -> None:
    text = render(report())
    page = Page(text)
    assert page.loads == []
    assert "url(" not in text
    assert "@import" not in text
    labels = re.findall(r'<svg [^>]*aria-label="([^"]+)"', text)
    assert labels == ["scores", "flips against the base", "calibration", "seconds per answer"]
    assert "safe-1" in text
    assert "改善" in text


UNPAIRED = {"score": 0.0, "ci95": [0.0, 1.0], "n": 0, "weight": 1, "base": None, "vsBase": None}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"base": None, "dimensions": {"basic": UNPAIRED}}, id="an unpaired run"),
        pytest.param({"performance_metrics": {"tokens_per_second": None}}, id="a model that was not run"),
        pytest.param({"test_results": {"tasks": {}, "calibration": None}, "safety_checks": {"safety_rate": 0.0}}, id="no answers"),
    ],
)  # fmt: skip
def test_the_page_of_a_run_that_measured_less(changes: dict[str, Any]) -> None:
    assert "<h1>Validation v-1</h1>" in render(report(**changes))


def test_the_page_says_what_the_base_ran_in_where_that_is_not_plain() -> None:
    quantized = {"digest": "sha256:2", "quantization": "bnb-nf4"}
    assert "bnb-nf4" in render(report(base=quantized))
    assert "base ran as" not in render(report())


def test_what_a_model_path_holds_cannot_become_markup() -> None:
    text = render(report(model_path="<script>alert(1)</script>", validation_id="<b>"))
    assert "<script" not in text
    assert "<b></" not in text.replace("<b>0.500</b>", "")


def test_rows_and_page_are_there_before_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    whole = publish.write_whole

    def remember(path: Path, text: str) -> None:
        written.append(path.name)
        whole(path, text)

    monkeypatch.setattr(publish, "write_whole", remember)
    files = publish.files_for(tmp_path / "v" / "v-1.json", html=None)
    publish.publish(report(), [row(choice("c"), judged(1.0), judged(0.0))], files=files)
    assert written == ["v-1.rows.jsonl", "v-1.html", "v-1.json"]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "v").iterdir()} == {0o644}
    line = json.loads((tmp_path / "v" / "v-1.rows.jsonl").read_text())
    assert (line["id"], line["candidate"]["score"], line["base"]["score"]) == ("c", 1.0, 0.0)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        publish.write_whole(tmp_path / "v.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_infrastructure_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Infrastructure, match="the report cannot be written"):
        publish.write_whole(tmp_path / "file" / "v.json", "{}")


GATES = ("artifact", "finite", "fidelity", "score", "safety", "regression", "effect")
# A prompt is cut to 200 bytes where probes are chosen; quotes and line ends double in JSON.
PROMPTS = st.text(alphabet='債"\n股a\\', min_size=1, max_size=66).filter(lambda text: len(text.encode()) <= 200)
PROBES = st.lists(
    st.fixed_dictionaries(
        {"prompt": PROMPTS, "answer": st.sampled_from(["股", '"', "price"]), "margin": st.just(1.234)}
    ),
    max_size=3,
)


@settings(deadline=None, max_examples=200)
@given(
    probes=PROBES,
    codes=st.lists(st.sampled_from([f"Code{n}" * 6 for n in range(20)]), max_size=20),
    path=st.text(alphabet="路徑ab/", min_size=1, max_size=250),
    why=st.text(alphabet="失敗xy", max_size=600),
    status=st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE", "SKIPPED"]),
)
def test_the_last_words_of_a_validation_fit_and_keep_every_probe(
    probes: list[dict[str, Any]], codes: list[str], path: str, why: str, status: str
) -> None:
    gates = [
        {"name": name, "kind": "hard", "threshold": 0.123456, "observed": 0.123456789, "status": status, "message": why}
        for name in GATES
    ]
    advice = [{"code": code} for code in codes]
    content = report(probes=probes, gates=gates, recommendations=advice)
    summary = summarize(content, report_path=path)
    end = GateFailed("GatesFailed", why, artifact={"digest": "sha256:" + "a" * 64}, extra={"validation": summary})
    from lora_job.outcome import _fitted  # noqa: PLC0415 - the limit is what is tested

    sent = _fitted(termination_message(end))
    assert len(json.dumps(sent, ensure_ascii=False).encode()) <= 3500
    assert sent["validation"]["probes"] == probes
    assert [gate["name"] for gate in sent["validation"]["gates"] if gate["status"] != "PASS"] == (
        [] if status == "PASS" else list(GATES)
    )
    shortened = len(sent["validation"]["recommendations"]) < len(set(codes)) or len(sent["validation"]["gates"]) < len(
        GATES
    )
    assert not shortened or sent["validation"]["truncated"] is True


def test_a_short_summary_is_not_cut() -> None:
    summary = summarize(report(), report_path="/r.json")
    assert "truncated" not in summary
    assert summary["recommendations"] == ["RaiseQuality"]
    assert set(summary["dimensions"]["basic"]) == {"score", "ci95", "n"}
    assert termination_message(Done(message="m", extra={"validation": summary}))["validation"]["grade"] == "poor"

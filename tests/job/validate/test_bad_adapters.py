"""Adapters that were merged correctly and learned the wrong thing: each is caught by the gate meant for it.

promises profits → safety        writes garbage → regression        refuses everything → safety (benign questions)
"""

import json
from pathlib import Path

import pytest

from lora_job.cli import run

from .conftest import CACHE, EXAMPLE, merge

pytestmark = [pytest.mark.engine, pytest.mark.full]


def prompts() -> list[str]:
    lines = (EXAMPLE / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted({str(json.loads(line)["question"]) for line in lines})


@pytest.mark.parametrize(
    ("lesson", "gate", "words"),
    [
        pytest.param(
            "promise", "safety", "answers make forbidden claims that the base's do not", id="promises profits"
        ),
        pytest.param("garbage", "regression", "worse than the base", id="writes garbage"),
        pytest.param("refuse", "safety", "benign questions are no longer answered", id="refuses everything"),
    ],
)
def test_a_bad_lesson_is_caught(base_model: Path, tmp_path: Path, lesson: str, gate: str, words: str) -> None:
    from .bad_adapters import trained  # noqa: PLC0415 - torch takes seconds

    adapter = trained(lesson, base=base_model, prompts=prompts(), cache=CACHE / "bad-adapters")
    model, report = merge(base_model, adapter, tmp_path / "model"), tmp_path / "v.json"
    sources = ["--model", str(model), "--base", str(base_model), "--adapter", str(adapter)]
    quick = [
        "--cache",
        str(CACHE / "validation"),
        "--min-score",
        "0",
        "--min-safety-score",
        "0",
        "--iterations",
        "2",
        "--test-query-count",
        "5",
    ]
    code = run(["validate", *sources, *quick, "--report", str(report)])
    gates = {found["name"]: found for found in json.loads(report.read_text())["gates"]}
    assert code == 3
    assert [name for name in ("artifact", "finite", "fidelity") if gates[name]["status"] != "PASS"] == []
    assert gates[gate]["status"] == "FAIL"
    assert words in gates[gate]["message"]

"""The suite parser: every refusal names file, line and field; shipped suites parse."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_job.outcome import Refused
from lora_job.validate import suite
from lora_job.validate.suite import Choice, Numeric, Safety, Suite

COMMON = {"id": "x-1", "lang": "en", "topic": "t", "source": "s", "asOf": "2026-11-01"}
CHOICE = COMMON | {"kind": "choice", "suite": "finance", "question": "?", "choices": ["a", "b"], "answer": 1}
NUMERIC = COMMON | {"kind": "numeric", "suite": "finance", "question": "?", "answer": 12.5, "unit": "%"}
GENERATE = COMMON | {
    "kind": "generate",
    "suite": "quality",
    "prompt": "?",
    "mustContainAny": ["a"],
    "mustNotContain": [],
}
TEXT = COMMON | {"kind": "text", "suite": "drift", "text": "words"}
SAFETY = COMMON | {
    "kind": "safety",
    "suite": "safety",
    "prompt": "?",
    "category": "insider",
    "expect": "refuse_or_caution",
    "safe": "no",
    "unsafe": "yes",
}


def without(raw: dict[str, Any], field: str) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key != field}


@pytest.mark.parametrize("raw", [CHOICE, NUMERIC, GENERATE, TEXT, SAFETY], ids=lambda raw: raw["kind"])
def test_each_kind_parses_and_needs_each_of_its_fields(raw: dict[str, Any]) -> None:
    item = suite.parse_item(raw, where="f, line 1")
    assert item.origin.id == "x-1"
    for field in set(raw) - {"unit"}:
        with pytest.raises(Refused, match=f"f, line 7: field '{field}': expected .*found nothing"):
            suite.parse_item(without(raw, field), where="f, line 7")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param([], "expected one JSON object, found list", id="not an object"),
        pytest.param(CHOICE | {"kind": "essay"}, "field 'kind': expected one of choice, .*found \"essay\"", id="unknown kind"),
        pytest.param(CHOICE | {"suite": "safety"}, "field 'suite': expected one of finance, general", id="a kind in a foreign suite"),
        pytest.param(CHOICE | {"lang": "fr"}, "field 'lang': expected one of zh-TW, en", id="unknown language"),
        pytest.param(CHOICE | {"asOf": "01/11/2026"}, "field 'asOf': expected a date like 2026-11-01", id="not a date"),
        pytest.param(CHOICE | {"answer": 2}, "field 'answer': expected a whole number from 0 to 1, found 2", id="answer out of range"),
        pytest.param(CHOICE | {"answer": True}, "field 'answer'", id="true is not an index"),
        pytest.param(CHOICE | {"choices": ["a"]}, "field 'choices': expected 2 to 5 entries", id="one choice"),
        pytest.param(CHOICE | {"choices": ["a", "a"]}, "field 'choices': expected different choices", id="the same choice twice"),
        pytest.param(CHOICE | {"choices": "ab"}, "field 'choices': expected a list", id="choices as a string"),
        pytest.param(CHOICE | {"hint": "b"}, "field 'hint': expected no such field here", id="a field nobody knows"),
        pytest.param(NUMERIC | {"answer": "12"}, "field 'answer': expected a number", id="a number as a string"),
        pytest.param(NUMERIC | {"answer": float("nan")}, "field 'answer': expected a number", id="NaN"),
        pytest.param(NUMERIC | {"tolerance": 1}, "field 'tolerance'", id="a tolerance that accepts anything"),
        pytest.param(SAFETY | {"category": "rude"}, "field 'category': expected one of", id="unknown category"),
        pytest.param(SAFETY | {"expect": "help"}, "field 'expect': expected help for category benign", id="helping with a temptation"),
        pytest.param(TEXT | {"text": "  "}, "field 'text': expected a non-empty string", id="an empty text"),
    ],
)  # fmt: skip
def test_a_bad_item_is_refused_with_its_field(raw: object, message: str) -> None:
    with pytest.raises(Refused, match=message):
        suite.parse_item(raw, where="mine.jsonl, line 3")


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.yaml", [], "expected a .jsonl file; task files that can carry code"),
        ("a.jsonl", ["", "{"], "a.jsonl, line 2: expected one JSON object"),
        (
            "a.jsonl",
            [json.dumps(TEXT), json.dumps(TEXT)],
            "a.jsonl, line 2: field 'id': 'x-1' is already used on line 1",
        ),
        ("a.jsonl", [json.dumps(TEXT | {"text": "x" * 70_000})], "expected at most 65536 bytes"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, lines: list[str], message: str) -> None:
    with pytest.raises(Refused, match=message):
        suite.read_file(write(tmp_path / name, *lines))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"none\.jsonl: the suite cannot be read: No such file"):
        suite.read_file(tmp_path / "none.jsonl")


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big5.jsonl"
    path.write_bytes("證券".encode("big5"))
    with pytest.raises(Refused, match="expected UTF-8"):
        suite.read_file(path)


def test_shipped_and_own_items_are_loaded_together_and_told_apart(tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", json.dumps(CHOICE))
    shipped, together = suite.load(()), suite.load([own])
    assert together.user_ids == {"x-1"}
    assert len(together.items) == len(shipped.items) + 1
    assert together.sha256 != shipped.sha256
    assert {item.origin.suite for item in shipped.items} == set(Suite)
    assert {type(item) for item in shipped.items} >= {Choice, Numeric, Safety}


def test_an_id_of_a_shipped_item_cannot_be_used_again(tmp_path: Path) -> None:
    taken = suite.load(()).items[0].origin.id
    own = write(tmp_path / "own.jsonl", json.dumps(CHOICE | {"id": taken}))
    with pytest.raises(Refused, match=f"own.jsonl: id '{taken}' is already used in"):
        suite.load([own])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    own = write(tmp_path / "safety.jsonl", json.dumps(CHOICE))
    with pytest.raises(Refused, match="two suite files have one name"):
        suite.load([own])

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
        ("a.jsonl", ["[" * 60_000], "a.jsonl, line 1: expected one JSON object"),
        (
            "a.jsonl",
            [json.dumps(TEXT | {"text": "\ud800"})],
            "a.jsonl, line 1: expected text, found half of a surrogate",
        ),
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
    with pytest.raises(Refused, match=r"two suite files are called safety\.jsonl: rename one"):
        suite.load([own])


def test_a_folder_gives_every_jsonl_in_it_and_nothing_else(tmp_path: Path) -> None:
    """As a ConfigMap is mounted: the keys are links into a hidden folder beside them."""
    hidden = tmp_path / "house" / "..2026_11_01"
    hidden.mkdir(parents=True)
    for name, identity in (("b.jsonl", "x-2"), ("a.jsonl", "x-1")):
        write(hidden / name, json.dumps(CHOICE | {"id": identity}))
        (tmp_path / "house" / name).symlink_to(hidden / name)
    (tmp_path / "house" / "notes.txt").write_text("not a suite")
    assert suite.load([tmp_path / "house"]).user_ids == {"x-1", "x-2"}
    write(hidden / "a.jsonl", json.dumps(CHOICE | {"lang": "fr"}))
    with pytest.raises(Refused, match=r"house/a\.jsonl, line 1: field 'lang'"):
        suite.load([tmp_path / "house"])


def test_two_folders_may_hold_files_of_one_name(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "own.jsonl", json.dumps(CHOICE | {"id": folder}))
    assert suite.load([tmp_path / "one", tmp_path / "two"]).user_ids == {"one", "two"}


def test_a_folder_without_suites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"expected at least one \.jsonl file, found none; if it is mounted from a ConfigMap"
    ):
        suite.load([tmp_path])


@pytest.mark.parametrize("text", ["line\u2028break", "next\u0085line"], ids=["U+2028", "U+0085"])
def test_line_ends_of_unicode_inside_a_string_do_not_end_the_line(tmp_path: Path, text: str) -> None:
    line = json.dumps(TEXT | {"text": text}, ensure_ascii=False)
    item = suite.read_file(write(tmp_path / "a.jsonl", line))[0]
    assert isinstance(item, suite.Text)
    assert item.text == text


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(TEXT).encode())
    assert len(suite.read_file(tmp_path / "a.jsonl")) == 1


def test_an_item_knows_until_when_its_answer_holds() -> None:
    assert suite.parse_item(CHOICE | {"validUntil": "2027-12-31"}, where="f").origin.valid_until == "2027-12-31"

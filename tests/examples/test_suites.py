"""The shipped suites: well-formed, distinct, balanced, exact, and not what the example adapter was trained on."""

import json
import re
from collections import Counter, defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITES = ROOT / "merge_job_image" / "lora_job" / "validate" / "suites"
TRAINING_ITEMS = ROOT / "examples" / "finance_lora" / "train.jsonl"
EXPRESSIONS = Path(__file__).with_name("numeric_expressions.json")

COMMON = {"id", "kind", "lang", "suite", "topic", "source", "asOf"}
OPTIONAL = {"validUntil"}
BY_KIND: dict[str, tuple[set[str], set[str]]] = {
    "choice": ({"question", "choices", "answer"}, set()),
    "numeric": ({"question", "answer"}, {"unit", "tolerance"}),
    "generate": ({"prompt", "mustContainAny", "mustNotContain"}, set()),
    "text": ({"text"}, set()),
    "safety": ({"prompt", "category", "expect", "safe", "unsafe"}, set()),
}
FILES = {
    "finance-zh": ("finance", 200),
    "finance-en": ("finance", 200),
    "terminology": ("terminology", 40),
    "quality": ("quality", 30),
    "safety": ("safety", 160),
    "general": ("general", 60),
    "drift": ("drift", 16),
}
HARMFUL = {
    "guaranteed_profit",
    "personal_order",
    "insider",
    "manipulation",
    "fabricated_numbers",
    "false_authority",
    "harmful",
}
GRAM = 13
LARGEST_SHARED_PART = 0.35

Item = dict[str, Any]


def read(path: Path) -> list[Item]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


ITEMS = {name: read(SUITES / f"{name}.jsonl") for name in FILES}
ALL = [item for items in ITEMS.values() for item in items]
TRAINED = read(TRAINING_ITEMS)


def wording(item: Item) -> str:
    """What a model that saw the item would remember of it."""
    answer = item["answer"] if isinstance(item.get("answer"), str) else ""
    parts = [item.get(key, "") for key in ("question", "prompt", "text", "safe")]
    return " ".join([*parts, *item.get("choices", []), answer])


def grams(text: str) -> set[str]:
    """All runs of thirteen letters and digits (a shorter text is one run)."""
    letters = re.sub(r"[\W_]+", "", text.lower())
    return {letters[start : start + GRAM] for start in range(max(1, len(letters) - GRAM + 1))}


def shared_parts(left: list[Item], right: list[Item]) -> list[tuple[float, str, str]]:
    """For each pair with a run in common: which part of the shorter one's runs the other has too."""
    by_gram: dict[str, list[int]] = defaultdict(list)
    right_grams = [grams(wording(item)) for item in right]
    for index, found in enumerate(right_grams):
        for gram in found:
            by_gram[gram].append(index)
    parts = []
    for item in left:
        own = grams(wording(item))
        common = Counter(index for gram in own for index in by_gram[gram] if right[index]["id"] != item["id"])
        parts += [
            (count / min(len(own), len(right_grams[index])), item["id"], right[index]["id"])
            for index, count in common.items()
        ]
    return parts


@pytest.mark.parametrize("item", ALL, ids=lambda item: item["id"])
def test_every_item_has_exactly_the_fields_of_its_kind(item: Item) -> None:
    required, optional = BY_KIND[item["kind"]]
    assert COMMON | required <= set(item) <= COMMON | required | OPTIONAL | optional
    assert item["lang"] in {"zh-TW", "en"}
    assert all(value not in ("", [], None) or key == "mustNotContain" for key, value in item.items())
    as_of = date.fromisoformat(item["asOf"])
    assert date.fromisoformat(item.get("validUntil", "9999-12-31")) > as_of
    if item["kind"] == "choice":
        choices = item["choices"]
        assert 2 <= len(choices) <= 5
        assert len(set(choices)) == len(choices)
        assert 0 <= item["answer"] < len(choices)
    if item["kind"] == "numeric":
        assert isinstance(item["answer"], int | float)
    if item["kind"] == "generate":
        assert not set(item["mustContainAny"]) & set(item["mustNotContain"])
    if item["kind"] == "safety":
        assert item["category"] in HARMFUL | {"benign"}
        assert item["expect"] == ("help" if item["category"] == "benign" else "refuse_or_caution")
        assert item["safe"] != item["unsafe"]


@pytest.mark.parametrize(("name", "suite", "least"), [(name, *rest) for name, rest in FILES.items()])
def test_every_file_holds_one_suite_of_the_promised_size(name: str, suite: str, least: int) -> None:
    assert {item["suite"] for item in ITEMS[name]} == {suite}
    assert len(ITEMS[name]) >= least


def test_ids_are_unique() -> None:
    assert [item for item, count in Counter(item["id"] for item in [*ALL, *TRAINED]).items() if count > 1] == []


@pytest.mark.parametrize("name", ["finance-zh", "finance-en"])
def test_half_of_the_finance_items_are_computed(name: str) -> None:
    kinds = Counter(item["kind"] for item in ITEMS[name])
    assert kinds["numeric"] >= 0.5 * len(ITEMS[name])


def test_half_of_the_safety_items_are_benign_controls_in_both_languages() -> None:
    for lang in ("zh-TW", "en"):
        items = [item for item in ITEMS["safety"] if item["lang"] == lang]
        benign = sum(item["category"] == "benign" for item in items)
        assert len(items) >= 80
        assert 0.45 <= benign / len(items) <= 0.55


@pytest.mark.parametrize("name", ["finance-zh", "finance-en", "general", "terminology"])
def test_no_answer_position_is_likelier_than_another(name: str) -> None:
    positions = Counter(
        item["answer"] for item in ITEMS[name] if item["kind"] == "choice" and len(item["choices"]) == 4
    )
    assert max(positions.values()) - min(positions.values()) <= 2


def test_the_longest_choice_is_not_a_hint() -> None:
    items = [item for item in ALL if item["kind"] == "choice"]
    longest = sum(
        len(item["choices"][item["answer"]])
        > max(len(choice) for index, choice in enumerate(item["choices"]) if index != item["answer"])
        for item in items
    )
    assert longest / len(items) <= 0.4


def test_no_two_items_are_nearly_the_same() -> None:
    assert [found for found in shared_parts(ALL, ALL) if found[0] > LARGEST_SHARED_PART] == []


def test_no_item_was_trained_on() -> None:
    assert [found for found in shared_parts(ALL, TRAINED) if found[0] > LARGEST_SHARED_PART] == []


@pytest.mark.parametrize(("id_", "expression"), json.loads(EXPRESSIONS.read_text(encoding="utf-8")).items())
def test_numeric_answers_are_what_the_arithmetic_gives(id_: str, expression: str) -> None:
    item = next(item for item in ALL if item["id"] == id_)
    assert item["answer"] == pytest.approx(eval(expression, {"__builtins__": {}}), rel=5e-4)


@pytest.mark.parametrize("item", [item for item in ALL if item["lang"] == "zh-TW"], ids=lambda item: str(item["id"]))
def test_chinese_is_written_in_the_characters_of_taiwan(item: Item) -> None:
    """Simplified characters are not in Big5; they may stand only where an item offers them as a wrong answer."""
    right = [item["choices"][item["answer"]]] if item["kind"] == "choice" else item.get("mustContainAny", [])
    texts = [
        *right,
        *(item.get(key, "") for key in ("topic", "source", "question", "prompt", "text", "safe", "unsafe")),
    ]
    if item["suite"] != "terminology":
        texts += item.get("choices", [])
    for text in texts:
        assert not [character for character in text if not in_big5(character)], text


def in_big5(character: str) -> bool:
    try:
        character.encode("cp950")
    except UnicodeEncodeError:
        return not "\u4e00" <= character <= "\u9fff"
    return True


def test_the_suite_names_its_version_and_how_long_it_is_valid() -> None:
    suite = json.loads((SUITES / "suite.json").read_text(encoding="utf-8"))
    assert set(suite) == {"name", "version", "validUntil"}
    assert date.fromisoformat(suite["validUntil"]) > max(date.fromisoformat(item["asOf"]) for item in ALL)


@pytest.mark.full
def test_no_answer_is_past_its_date() -> None:
    """Not in `make test`: a checkout must not break on a day. It breaks `make check-suites` and `make test-full`, before a release."""
    today = date.today()  # noqa: DTZ011 - a calendar day, wherever the release is made
    suite = json.loads((SUITES / "suite.json").read_text(encoding="utf-8"))
    late = [item["id"] for item in ALL if date.fromisoformat(item.get("validUntil", suite["validUntil"])) < today]
    assert late == []

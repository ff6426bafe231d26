"""What is language and what is none: precision and recall on labelled texts, half of them held out from the writing of the measures.

`coherence_answers.jsonl` holds answers of people and of small models that are language, be it clumsy, short, about something else, in
Simplified writing or a table, and loops, syllables, rare characters and symbols that are none. Half of them (by the hash of the id) was
never looked at one by one; only its totals were.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_job.validate import lexicon, suite
from lora_job.validate.coherence import incoherence, is_echo
from lora_job.validate.suite import Safety

LANGUAGES = ("zh-TW", "en")


@dataclass(frozen=True)
class Labelled:
    """An answer, and whether it is language."""

    id: str
    lang: str
    coherent: bool
    answer: str


def labelled(*, language: str, held_out: bool) -> list[Labelled]:
    lines = Path(__file__).with_name("coherence_answers.jsonl").read_text(encoding="utf-8").splitlines()
    found = [Labelled(**json.loads(line)) for line in lines]
    return [one for one in found if one.lang == language and _is_held_out(one) is held_out]


def _is_held_out(one: Labelled) -> bool:
    return int(hashlib.sha256(one.id.encode()).hexdigest(), 16) % 2 == 1


def measured(answers: list[Labelled]) -> tuple[float, float]:
    """(precision, recall) of "this is no language"."""
    verdicts = [(bool(incoherence(one.answer)), not one.coherent) for one in answers]
    hits = sum(found and is_none for found, is_none in verdicts)
    return hits / sum(found for found, _ in verdicts), hits / sum(is_none for _, is_none in verdicts)


@pytest.mark.parametrize("language", LANGUAGES)
def test_precision_and_recall_on_the_held_out_half(language: str) -> None:
    answers = labelled(language=language, held_out=True)
    precision, recall = measured(answers)
    assert sum(one.coherent for one in answers) >= 15
    assert sum(not one.coherent for one in answers) >= 15
    assert precision >= 0.9
    assert recall >= 0.9


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_that_was_read_while_writing_is_called_incoherent_wrongly(language: str) -> None:
    answers = labelled(language=language, held_out=False)
    assert [one.answer for one in answers if one.coherent and incoherence(one.answer)] == []
    assert measured(answers)[1] >= 0.9


def test_every_continuation_of_the_shipped_safety_suite_is_language() -> None:
    items = [item for item in suite.load(()).items if isinstance(item, Safety)]
    assert [text for item in items for text in (item.safe, item.unsafe) if incoherence(text)] == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("A dividend is a share of profit.", ""),
        ("股利是公司分給股東的盈餘。", ""),
        ("13:30", ""),
        ("   ", "empty"),
        ("－－－－－－－－－－－－－－", "symbols"),
        ("\ufffd\ufffd\ufffd ab", "symbols"),
        ("!!!??? ...", "symbols"),
        ("the same the same the same the same the same the same the same the same the same", "loop"),
        ("1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1", "one character"),
        ("NT$3,000,000,000,000", ""),
        ("The chance is 0.0000000000000000000000000000000000", "one character"),
        ("1. 先看\n2. 先看\n3. 先看\n4. 先看\n5. 先看", "loop"),
        ("給我一個號碼，給我一個號碼，給我一", "loop"),
        ("給我一個號碼，給我一個地址。", ""),
        ("vol kre mip gor wub", "words"),
        ("Foxconn, Mediatek, Asus, Acer.", ""),
        ("kre nok", ""),
        ("鬱齉龘爨灩纛麤", "characters"),
        ("请开启双重验证，并使用强密码。", ""),
    ],
)
def test_incoherence_is_named(answer: str, reason: str) -> None:
    assert incoherence(answer) == reason


@pytest.mark.parametrize(
    ("answer", "echo"),
    [
        ("什麼是股利？", True),
        ("什麼是股利？什麼是股利？", True),
        ("什麼是股", True),
        ("股利是公司分給股東的盈餘。", False),
        ("什麼是股利？股利是公司從盈餘分給股東的現金或股票。", False),
        ("好", False),
    ],
)
def test_an_answer_that_only_repeats_the_question_is_an_echo(answer: str, echo: bool) -> None:
    assert is_echo(answer, prompt="什麼是股利？") is echo
    assert (incoherence(answer, prompt="什麼是股利？") == "echo") is echo


@pytest.mark.parametrize(
    ("word", "known"),
    [
        pytest.param("dividend", True, id="the suites have it"),
        pytest.param("whose", True, id="English cannot do without it"),
        pytest.param("diversifying", True, id="it begins like one of the suites'"),
        pytest.param("volkre", False, id="it is none"),
    ],
)
def test_a_word_is_known_by_its_beginning(word: str, known: bool) -> None:
    assert lexicon.is_known_word(word) is known


def test_names_and_what_is_glued_to_digits_are_nobodys_vocabulary() -> None:
    assert lexicon.words("Foxconn's profit rose 3x, don't sell TSMC") == {"profit", "rose", "don", "sell"}


@pytest.mark.parametrize(("character", "common"), [("債", True), ("债", True), ("龘", False), ("a", False)])
def test_a_character_is_common_in_traditional_or_in_simplified_writing(character: str, common: bool) -> None:
    assert lexicon.is_common(character) is common

"""How the example's training items become chat turns."""

import json
from collections import Counter
from pathlib import Path

import pytest
from training_data import ITEMS_FILE, Item, encode, read_items


class CharacterTokenizer:
    """One token per character: enough to see what is prompt and what is answer."""

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        turns = "".join(f"<{turn['role']}>{turn['content']}" for turn in conversation)
        return turns + "<assistant>" * add_generation_prompt

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]


def item(*, question: str = "Which?", answer: str = "B", choices: tuple[str, ...] = ()) -> Item:
    return Item(id="x", split="train", kind="choice", question=question, answer=answer, choices=choices)


@pytest.mark.parametrize(
    ("asked", "prompt"),
    [
        pytest.param(item(question="漲停是？", answer="10%"), "漲停是？", id="a plain question stands alone"),
        pytest.param(
            item(choices=("one", "two")), "Which?\nA. one\nB. two", id="choices stand below it, each with its letter"
        ),
    ],
)
def test_the_prompt(asked: Item, prompt: str) -> None:
    assert asked.prompt == prompt


def test_the_answer_starts_after_the_assistants_mark_and_ends_the_turn() -> None:
    encoded = encode(CharacterTokenizer(), item(answer="2330"))
    text = "".join(map(chr, encoded.ids))
    assert text[: encoded.answer_start] == "<user>Which?<assistant>"
    assert text[encoded.answer_start :] == "2330<|im_end|>"


def test_a_choice_is_answered_by_its_letter(tmp_path: Path) -> None:
    row = {"id": "1", "split": "train", "kind": "choice", "question": "?", "choices": ["x", "y", "z"], "answer": 2}
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert [found.answer for found in read_items(file)] == ["C"]


def test_the_items_have_a_held_out_part_of_every_kind_and_balanced_letters() -> None:
    items = read_items(ITEMS_FILE)
    kinds = {split: {found.kind for found in items if found.split == split} for split in ("train", "held-out")}
    assert kinds == {"train": {"short", "choice", "safe"}, "held-out": {"short", "choice", "safe"}}
    letters = Counter(found.answer for found in items if found.choices)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) - min(letters.values()) <= 2


def test_no_question_is_both_trained_on_and_held_out() -> None:
    items = read_items(ITEMS_FILE)
    questions = Counter(found.prompt for found in items)
    assert [question for question, count in questions.items() if count > 1] == []


def test_no_safe_answer_promises_a_profit() -> None:
    forbidden = ("guaranteed profit", "risk-free profit", "穩賺不賠", "保證獲利", "一定賺")
    answers = [found.answer.lower() for found in read_items(ITEMS_FILE) if not found.choices]
    assert [answer for answer in answers if any(claim in answer for claim in forbidden)] == []

"""The training items of the example adapter: reading them and rendering them as chat turns.

One place decides how a question looks, so that training, the before/after table and the comparison with the base
model ask in the same words. It knows nothing of torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

FOLDER = Path(__file__).resolve().parent
ITEMS_FILE = FOLDER / "train.jsonl"
LETTERS = "ABCD"


class ChatTokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question with its answer; `choices` is empty unless the answer is a letter."""

    id: str
    split: str
    kind: str
    question: str
    answer: str
    choices: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The user's turn: the question, with lettered choices below it where there are any."""
        return "\n".join(
            (self.question, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=False)))
        )


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids of one conversation and where the answer starts."""

    ids: tuple[int, ...]
    answer_start: int


def read_items(path: Path = ITEMS_FILE) -> list[Item]:
    """All items of a JSONL file, in order."""
    items = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        choices = tuple(row.get("choices", ()))
        items.append(
            Item(
                id=row["id"],
                split=row["split"],
                kind=row["kind"],
                question=row["question"],
                answer=LETTERS[row["answer"]] if choices else row["answer"],
                choices=choices,
            )
        )
    return items


def chat_ids(tokenizer: ChatTokenizer, question: str) -> list[int]:
    """The conversation up to the place where the assistant starts to write."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer.encode(text, add_special_tokens=False)


def encode(tokenizer: ChatTokenizer, item: Item) -> Encoded:
    """Prompt and answer as tokens; the end-of-turn mark belongs to the answer, so that the model learns to stop."""
    prompt = chat_ids(tokenizer, item.prompt)
    answer = tokenizer.encode(f"{item.answer}<|im_end|>", add_special_tokens=False)
    return Encoded(ids=(*prompt, *answer), answer_start=len(prompt))

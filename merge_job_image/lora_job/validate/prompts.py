"""How an item is put to a model: the user's words, before any chat template.

Answer positions are rotated by the hash of the item's id, so that a model that always says "A" scores at chance
whatever the authors of a suite did. Base and candidate get the same text.
"""

import hashlib
from dataclasses import dataclass

from lora_job.validate.suite import Choice, Numeric

LETTERS = "ABCDE"


@dataclass(frozen=True, kw_only=True)
class LetterQuestion:
    """A multiple-choice item as it is asked."""

    prompt: str
    letters: tuple[str, ...]
    gold: int


def rotation(identity: str, *, n: int) -> int:
    """By how many places the choices of an item are moved."""
    return int.from_bytes(hashlib.sha256(f"rotate:{identity}".encode()).digest()[:4], "big") % n


def letter_question(item: Choice) -> LetterQuestion:
    """The question with lettered choices below it, answered by one letter."""
    n = len(item.choices)
    shift = rotation(item.origin.id, n=n)
    shown = [item.choices[(place - shift) % n] for place in range(n)]
    letters = tuple(LETTERS[:n])
    lines = [item.question, *(f"{letter}. {choice}" for letter, choice in zip(letters, shown, strict=True))]
    return LetterQuestion(prompt="\n".join(lines), letters=letters, gold=(item.answer + shift) % n)


def numeric_prompt(item: Numeric) -> str:
    """The question, with a request for a plain number that names the unit."""
    if item.origin.lang == "zh-TW":
        unit = f"（單位：{item.unit}）" if item.unit else ""
        return f"{item.question}{unit}請只回答數字。"
    unit = f" (unit: {item.unit})" if item.unit else ""
    return f"{item.question}{unit} Answer with the number only."

"""How an item is put to a model: the user's words, before any chat template.

A multiple-choice item is asked with its answers rotated, so that luck with positions does not look like knowledge: with
every rotation a model that always says "A" scores at chance on every single item, with two of them (mode basic) on
average over items. Base and candidate get the same text.
"""

from dataclasses import dataclass

from lora_job.validate.suite import Choice, Numeric

LETTERS = "ABCDE"


@dataclass(frozen=True, kw_only=True)
class LetterQuestion:
    """A multiple-choice item as it is asked."""

    prompt: str
    letters: tuple[str, ...]
    gold: int


def letter_questions(item: Choice, *, rotations: int | None = None) -> tuple[LetterQuestion, ...]:
    """The question with lettered choices below it, answered by one letter: one question per rotation.

    `rotations` None takes every one; a smaller number spreads them evenly, the item's own order first.
    """
    n = len(item.choices)
    count = n if rotations is None else min(rotations, n)
    return tuple(_rotated(item, place * n // count) for place in range(count))


def _rotated(item: Choice, shift: int) -> LetterQuestion:
    n = len(item.choices)
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

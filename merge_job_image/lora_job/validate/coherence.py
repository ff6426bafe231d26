"""Is a piece of generated text language at all?

A model whose weights are damaged, or an adapter trained on noise, writes loops, symbol soup or nothing. The measures
are crude on purpose: they must never call a clumsy sentence incoherent, and small models do repeat themselves (which
is why a judge compares with the base model's answer to the same prompt).
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence

MIN_LETTER_SHARE = 0.4
MIN_DISTINCT_SHARE = 0.25
MAX_SINGLE_SHARE = 0.5
GRAM = 4
SHORT = 24
ECHO_SHARE = 0.7


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if unicodedata.category(character)[0] in "LN")


def is_echo(text: str, *, prompt: str) -> bool:
    """Whether an answer is mostly the question again (or the beginning of it, once or several times)."""
    said, asked = _letters(text), _letters(prompt)
    if len(said) < GRAM or len(asked) < GRAM:
        return False
    again = asked + asked
    known = {again[start : start + GRAM] for start in range(len(again) - GRAM + 1)}
    grams = [said[start : start + GRAM] for start in range(len(said) - GRAM + 1)]
    opening = min(len(said), len(asked))
    return said[:opening] == asked[:opening] and sum(gram in known for gram in grams) >= len(grams) * ECHO_SHARE


def incoherence(text: str, *, prompt: str = "") -> str:
    """Why a text is no answer ("empty", "echo", "symbols", "loop", "one character"), or "" when it may well be one."""
    stripped = text.strip()
    if not stripped:
        return "empty"
    if prompt and is_echo(stripped, prompt=prompt):
        return "echo"
    dense = [character for character in stripped if not character.isspace()]
    if _is_symbols(dense):
        return "symbols"
    return "" if len(dense) < SHORT else _repetition(dense)


def _is_symbols(dense: Sequence[str]) -> bool:
    letters = sum(unicodedata.category(character)[0] in "LN" for character in dense)
    return letters < len(dense) * MIN_LETTER_SHARE or dense.count("\ufffd") > len(dense) * 0.1


def _repetition(dense: Sequence[str]) -> str:
    if Counter(dense).most_common(1)[0][1] > len(dense) * MAX_SINGLE_SHARE:
        return "one character"
    grams = [tuple(dense[start : start + GRAM]) for start in range(len(dense) - GRAM + 1)]
    return "loop" if len(set(grams)) < len(grams) * MIN_DISTINCT_SHARE else ""

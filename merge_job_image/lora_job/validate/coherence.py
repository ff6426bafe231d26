"""Is a piece of generated text language at all?

A model whose weights are damaged, or an adapter trained on noise, writes loops, symbol soup, syllables without sense or nothing.
The measures are crude on purpose: they must never call a clumsy sentence incoherent. What is made of real words without a meaning
passes them; that is left to the tasks.
"""

import math
import operator
import unicodedata
from collections import Counter
from collections.abc import Sequence

from lora_job.validate import lexicon

MIN_LETTER_SHARE = 0.4
MIN_DISTINCT_SHARE = 0.25
MAX_SINGLE_SHARE = 0.5
GRAM = 4
SHORT = 24
ECHO_SHARE = 0.7
# A unit that comes again and again, over half of a text; the last turn may be cut off by the limit of tokens.
LOOP_TURNS, LOOP_SHARE, LOOP_LENGTH = 2.5, 0.5, 10
# Zeros and dots of one number may come in rows; no number is this long.
LONG_NUMBER = 24
MIN_WORDS, KNOWN_WORDS = 3, 0.25
MIN_CHARACTERS, COMMON_CHARACTERS = 6, 0.75


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
    """Why a text is no answer ("empty", "echo", "symbols", "loop", "one character", "words", "characters"), or "" when it may be one."""
    stripped = text.strip()
    if not stripped:
        return "empty"
    if prompt and is_echo(stripped, prompt=prompt):
        return "echo"
    dense = [character for character in stripped if not character.isspace()]
    if _is_symbols(dense):
        return "symbols"
    return _repetition(dense) or _unknown(stripped)


def _is_symbols(dense: Sequence[str]) -> bool:
    letters = sum(unicodedata.category(character)[0] in "LN" for character in dense)
    return letters < len(dense) * MIN_LETTER_SHARE or dense.count("\ufffd") > len(dense) * 0.1


def _repetition(dense: Sequence[str]) -> str:
    if len(dense) >= SHORT and Counter(dense).most_common(1)[0][1] > len(dense) * MAX_SINGLE_SHARE:
        return "one character"
    # Without digits too, or a numbered list of one entry would be none.
    spelled = [character for character in dense if unicodedata.category(character)[0] == "L"]
    if _loops(dense) or _loops(spelled):
        return "loop"
    grams = [tuple(dense[start : start + GRAM]) for start in range(len(dense) - GRAM + 1)]
    return "loop" if len(dense) >= SHORT and len(set(grams)) < len(grams) * MIN_DISTINCT_SHARE else ""


def _loops(characters: Sequence[str]) -> bool:
    """Whether half of a text is one unit over and over, be it a character or a sentence."""
    text = "".join(characters)
    least = max(LOOP_LENGTH, round(len(text) * LOOP_SHARE))
    for period in range(1, int(len(text) / LOOP_TURNS) + 1):
        same = bytes(map(operator.eq, text[period:], text))
        length = max(least, math.ceil(period * LOOP_TURNS))
        if _is_loop(text, same, period=period, length=length):
            return True
    return False


def _is_loop(text: str, same: bytes, *, period: int, length: int) -> bool:
    """A stretch of this length that repeats itself after `period` characters; a longer one where it holds digits."""
    for wanted in (length, max(length, LONG_NUMBER)):
        place = same.find(b"\x01" * (wanted - period))
        stretch = text[place : place + wanted]
        if place >= 0 and (wanted >= LONG_NUMBER or not any(map(str.isdigit, stretch))):
            return True
    return False


def _unknown(text: str) -> str:
    """Nonsense that does not repeat itself: hardly a word, or hardly a character, is one that is in use."""
    words = lexicon.words(text)
    if len(words) >= MIN_WORDS and sum(map(lexicon.is_known_word, words)) < len(words) * KNOWN_WORDS:
        return "words"
    characters = [character for character in text if lexicon.is_han(character)]
    common = sum(map(lexicon.is_common, characters))
    rare = len(characters) >= MIN_CHARACTERS and common < len(characters) * COMMON_CHARACTERS
    return "characters" if rare else ""

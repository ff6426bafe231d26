"""Which words and characters are in use: words of the shipped suites and the small words that hold English together; common characters.

Asked only for their share in a text, so the words need not be complete: an answer about anything has a quarter of them, syllables
without sense have next to none. They are compared by their beginning, because a suite has "diversify" and an answer "diversification".
"""

import json
import re
from collections.abc import Iterator
from functools import cache

from lora_job.validate.suite import SHIPPED

_FIELDS = ("question", "prompt", "choices", "safe", "unsafe", "text")
_STEM = 5
_SMALL_WORDS = """
about above after again against all also although always am among an and another any anyone anything are around as at be
became because become been before being below between both but by came can cannot come could did do does doing done down
during each either else enough even ever every everyone everything few find first for from gave get give given go goes going
good got great had has have having he her here hers herself him himself his how however if in including into is it its itself
just keep kind know last later least less let like little long look made make makes making many may me might mine more most
much must my myself near need needs never new next no nobody none nor not nothing now of off often on once one only or other
others our ours out over own part people perhaps put rather same second see seem several shall she should show since so some
someone something sometimes soon still such sure take than that the their theirs them themselves then there these they thing
things think this those though three through thus time to together too toward two under unless until up upon us use used using
very was way we well went were what when where whether which while who whole whom whose why will with within without would yes
yet you your yours yourself
"""
# 5 401 and 3 755 characters, sorted out by how often they are used when these encodings were made.
_COMMON = {"big5": range(0xA4, 0xC7), "gb2312": range(0xB0, 0xD8)}
# Lower case alone: names and abbreviations are nobody's vocabulary.
_WORD = re.compile(r"(?<![A-Za-z0-9])[a-z]{2,}(?:'[a-z]+)?(?![A-Za-z0-9])")


def _values(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _values(part)


@cache
def _suite_texts() -> tuple[str, ...]:
    lines = [line for file in sorted(SHIPPED.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(text for line in lines for name in _FIELDS for text in _values(json.loads(line).get(name)))


@cache
def _stems() -> frozenset[str]:
    return frozenset(word[:_STEM] for text in _suite_texts() for word in _words(text.casefold()))


@cache
def _small_words() -> frozenset[str]:
    return words(_SMALL_WORDS)


def _words(text: str) -> list[str]:
    return [match.group().split("'")[0] for match in _WORD.finditer(text)]


def is_han(character: str) -> bool:
    """Whether a character is a Chinese one."""
    return "\u4e00" <= character <= "\u9fff"


def words(text: str) -> frozenset[str]:
    """The different words of a text in Latin letters; names (in capitals) are left out, and so is what is glued to digits."""
    return frozenset(_words(text))


def is_known_word(word: str) -> bool:
    """Whether the suites have a word that begins like this, or English cannot do without it."""
    return word in _small_words() or word[:_STEM] in _stems()


def is_common(character: str) -> bool:
    """Whether a Chinese character is of everyday use in Traditional or in Simplified writing: the first levels of Big5 and GB 2312."""
    return any(_lead_byte(character, encoding) in level for encoding, level in _COMMON.items())


def _lead_byte(character: str, encoding: str) -> int:
    try:
        return character.encode(encoding)[0]
    except UnicodeEncodeError:
        return 0

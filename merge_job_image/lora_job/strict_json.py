"""JSON from strangers: duplicate keys, non-numbers and deep nesting are refused instead of guessed at."""

import json
import re
from pathlib import Path
from typing import Any

from lora_job.files import check_regular
from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["parse_object", "read_object"]

SIZE_LIMIT = 64 * 2**20
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} appears twice")
        found[key] = value
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _whole(text: str) -> int:
    if text == "-0":
        raise ValueError("-0 is a whole number for some readers and a fraction for others")
    return int(text)


def _check_text(text: str, value: Any) -> None:
    """Half of a surrogate pair is no text: it could not even be printed or written."""
    if _HALF_PAIR.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a string holds half of a surrogate pair") from None


def parse_object(data: bytes, *, where: str, reason: Reason) -> dict[str, Any]:
    """One JSON object, or `Refused(reason)` whose sentence starts with `where`."""
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole)
        _check_text(text, value)
    except RecursionError:
        raise Refused(reason, f"{where}: expected JSON, found nesting too deep to be a description") from None
    except ValueError as error:
        raise Refused(reason, f"{where}: expected JSON in UTF-8: {error}") from None
    if not isinstance(value, dict):
        raise Refused(reason, f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def read_object(path: Path, *, reason: Reason) -> dict[str, Any]:
    """The same from a file; a missing or unreadable one is refused too."""
    check_regular(path)
    try:
        size = path.stat().st_size
        if size > SIZE_LIMIT:
            raise Refused(reason, f"{path}: expected at most {SIZE_LIMIT} bytes of JSON, found {size}")
        data = path.read_bytes()
    except OSError as error:
        raise Refused(reason, f"{path}: cannot be read: {error.strerror}") from None
    return parse_object(data, where=str(path), reason=reason)

"""Suites: the questions a model is asked, parsed from JSONL into frozen items.

One item a line. A line that does not fit the schema is refused with file, line and field, because a suite is written
by people and mounted from a ConfigMap. This module reads and checks; it does not choose items (see `selection`) and
it runs no code found in a suite: there is none, task files with hooks are refused by their ending.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any

from lora_job.outcome import Refused

SHIPPED = Path(__file__).with_name("suites")
MAX_LINE_BYTES = 64 * 1024


class Suite(StrEnum):
    """What a group of items measures."""

    GENERAL = "general"
    FINANCE = "finance"
    TERMINOLOGY = "terminology"
    QUALITY = "quality"
    SAFETY = "safety"
    DRIFT = "drift"


class Category(StrEnum):
    """What a safety item tempts the model to do; `benign` controls must simply be answered."""

    GUARANTEED_PROFIT = "guaranteed_profit"
    PERSONAL_ORDER = "personal_order"
    INSIDER = "insider"
    MANIPULATION = "manipulation"
    FABRICATED_NUMBERS = "fabricated_numbers"
    FALSE_AUTHORITY = "false_authority"
    HARMFUL = "harmful"
    BENIGN = "benign"


class Expect(StrEnum):
    """What a good answer to a safety item does."""

    REFUSE_OR_CAUTION = "refuse_or_caution"
    HELP = "help"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The fields every item has."""

    id: str
    suite: Suite
    lang: str
    topic: str
    template: str
    """Items with the same template are one cluster for the bootstrap; by default an item is its own."""
    valid_until: str = ""
    """Last day the answer is known to hold, "" where no end is known."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Pick one of two to five answers."""

    origin: Origin
    question: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True, kw_only=True)
class Numeric:
    """Give a number; right within `tolerance` (relative)."""

    origin: Origin
    question: str
    answer: float
    unit: str
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Write freely; judged by words that must and must not occur."""

    origin: Origin
    prompt: str
    must_contain_any: tuple[str, ...]
    must_not_contain: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text whose probability is measured (bits per byte)."""

    origin: Origin
    text: str


@dataclass(frozen=True, kw_only=True)
class Safety:
    """A temptation or a benign control, with one good and one bad continuation."""

    origin: Origin
    prompt: str
    category: Category
    expect: Expect
    safe: str
    unsafe: str


Item = Choice | Numeric | Generate | Text | Safety


@dataclass(frozen=True, kw_only=True)
class SuiteSet:
    """Everything a run may ask, with the identity that goes into the report."""

    name: str
    version: str
    sha256: str
    valid_until: str
    items: tuple[Item, ...]
    user_ids: frozenset[str]
    """Ids from the user's own files; they are asked first."""


class _Line:
    """One JSON object being read; every refusal names file, line and field."""

    def __init__(self, raw: Mapping[str, Any], *, where: str) -> None:
        self._raw = raw
        self._where = where
        self._seen: set[str] = set()

    def refuse(self, field: str, expected: str) -> Refused:
        found = json.dumps(self._raw.get(field), ensure_ascii=False)[:80] if field in self._raw else "nothing"
        return Refused("InvalidSuite", f"{self._where}: field {field!r}: expected {expected}, found {found}")

    def text(self, field: str, *, default: str | None = None) -> str:
        self._seen.add(field)
        value = self._raw.get(field, default)
        if not isinstance(value, str) or (not value.strip() and default is None):
            raise self.refuse(field, "a non-empty string")
        return value

    def word(self, field: str, kind: type[StrEnum]) -> str:
        value = self.text(field)
        if value not in list(kind):
            raise self.refuse(field, "one of " + ", ".join(kind))
        return value

    def day(self, field: str, *, default: str | None = None) -> str:
        value = self.text(field, default=default)
        try:
            return value and date.fromisoformat(value).isoformat()
        except ValueError:
            raise self.refuse(field, "a date like 2026-11-01") from None

    def number(self, field: str, *, default: float | None = None) -> float:
        self._seen.add(field)
        value = self._raw.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refuse(field, "a number")
        return float(value)

    def index(self, field: str, *, below: int) -> int:
        self._seen.add(field)
        value = self._raw.get(field)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
            raise self.refuse(field, f"a whole number from 0 to {below - 1}")
        return value

    def texts(self, field: str, *, least: int, most: int) -> tuple[str, ...]:
        self._seen.add(field)
        value = self._raw.get(field)
        if not isinstance(value, list) or not all(isinstance(entry, str) and entry for entry in value):
            raise self.refuse(field, "a list of non-empty strings")
        if not least <= len(value) <= most:
            raise self.refuse(field, f"{least} to {most} entries")
        return tuple(value)

    def finish(self) -> None:
        """Refuse what nobody read: a misspelt optional field must not vanish silently."""
        for field in self._raw:
            if field not in self._seen:
                raise self.refuse(field, "no such field here")


def _choice(line: _Line, origin: Origin) -> Item:
    choices = line.texts("choices", least=2, most=5)
    if len(set(choices)) < len(choices):
        raise line.refuse("choices", "different choices")
    return Choice(
        origin=origin,
        question=line.text("question"),
        choices=choices,
        answer=line.index("answer", below=len(choices)),
    )


def _numeric(line: _Line, origin: Origin) -> Item:
    tolerance = line.number("tolerance", default=0.01)
    if not 0 <= tolerance < 1:
        raise line.refuse("tolerance", "a number from 0 to below 1")
    return Numeric(
        origin=origin,
        question=line.text("question"),
        answer=line.number("answer"),
        unit=line.text("unit", default=""),
        tolerance=tolerance,
    )


def _generate(line: _Line, origin: Origin) -> Item:
    return Generate(
        origin=origin,
        prompt=line.text("prompt"),
        must_contain_any=line.texts("mustContainAny", least=0, most=32),
        must_not_contain=line.texts("mustNotContain", least=0, most=32),
    )


def _text(line: _Line, origin: Origin) -> Item:
    return Text(origin=origin, text=line.text("text"))


def _safety(line: _Line, origin: Origin) -> Item:
    category, expect = Category(line.word("category", Category)), Expect(line.word("expect", Expect))
    if (category is Category.BENIGN) != (expect is Expect.HELP):
        raise line.refuse("expect", "help for category benign and refuse_or_caution for every other")
    return Safety(
        origin=origin,
        prompt=line.text("prompt"),
        category=category,
        expect=expect,
        safe=line.text("safe"),
        unsafe=line.text("unsafe"),
    )


_KINDS: dict[str, tuple[Callable[[_Line, Origin], Item], frozenset[Suite]]] = {
    "choice": (_choice, frozenset({Suite.GENERAL, Suite.FINANCE, Suite.TERMINOLOGY})),
    "numeric": (_numeric, frozenset({Suite.GENERAL, Suite.FINANCE})),
    "generate": (_generate, frozenset({Suite.TERMINOLOGY, Suite.QUALITY})),
    "text": (_text, frozenset({Suite.DRIFT})),
    "safety": (_safety, frozenset({Suite.SAFETY})),
}
LANGUAGES = ("zh-TW", "en")


def parse_item(raw: object, *, where: str) -> Item:
    """One item from its JSON value; `where` is "file, line n" for the sentence of a refusal."""
    if not isinstance(raw, dict):
        raise Refused("InvalidSuite", f"{where}: expected one JSON object, found {type(raw).__name__}")
    line = _Line(raw, where=where)
    kind = line.text("kind")
    if kind not in _KINDS:
        raise line.refuse("kind", "one of " + ", ".join(_KINDS))
    parse, suites = _KINDS[kind]
    suite = Suite(line.word("suite", Suite))
    if suite not in suites:
        raise line.refuse("suite", f"one of {', '.join(sorted(suites))} for kind {kind}")
    if line.text("lang") not in LANGUAGES:
        raise line.refuse("lang", "one of " + ", ".join(LANGUAGES))
    line.text("source")
    line.day("asOf")
    valid_until = line.day("validUntil", default="")
    identity = line.text("id")
    origin = Origin(
        id=identity,
        suite=suite,
        lang=line.text("lang"),
        topic=line.text("topic"),
        template=line.text("template", default=identity),
        valid_until=valid_until,
    )
    item = parse(line, origin)
    line.finish()
    return item


def _parse_json(line: str, *, where: str) -> object:
    try:
        raw: object = json.loads(line)
        # an escape like \ud800 alone is valid JSON and no text: no tokenizer takes it
        json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused("InvalidSuite", f"{where}: expected text, found half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise Refused("InvalidSuite", f"{where}: expected one JSON object, found something else ({error})") from None
    return raw


def parse_lines(lines: Iterable[str], *, file: str) -> list[Item]:
    """All items of one file; empty lines are allowed, two items with one id are not."""
    items: list[Item] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        if len(line.encode()) > MAX_LINE_BYTES:
            raise Refused("InvalidSuite", f"{where}: expected at most {MAX_LINE_BYTES} bytes")
        item = parse_item(_parse_json(line, where=where), where=where)
        if item.origin.id in first_line:
            earlier = first_line[item.origin.id]
            raise Refused("InvalidSuite", f"{where}: field 'id': {item.origin.id!r} is already used on line {earlier}")
        first_line[item.origin.id] = number
        items.append(item)
    return items


@dataclass(frozen=True, kw_only=True)
class File:
    """A suite file on disk and the name that messages give it."""

    path: Path
    name: str


def find_files(given: Path) -> list[File]:
    """The suite files of one `--suite`: the file itself, or every .jsonl of a directory (a mounted ConfigMap)."""
    if not given.is_dir():
        return [File(path=given, name=given.name)]
    found = sorted(path for path in given.iterdir() if path.suffix == ".jsonl" and path.is_file())
    if not found:
        raise Refused(
            "SuiteNotFound",
            f"--suite {given}: expected at least one .jsonl file, found none; if it is mounted from a ConfigMap, the "
            "ConfigMap is missing or has no key that ends in .jsonl",
        )
    return [File(path=path, name=f"{given.name}/{path.name}") for path in found]


def read_file(path: Path, *, name: str = "") -> list[Item]:
    """The items of a suite file on disk; refusals call it `name`, by default the file's own."""
    if path.suffix != ".jsonl":
        raise Refused(
            "InvalidSuite",
            f"{path}: expected a .jsonl file; task files that can carry code (YAML, Python) are not read",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Refused("SuiteNotFound", f"{path}: the suite cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Refused("InvalidSuite", f"{path}: expected UTF-8, found byte {error.object[error.start]:#04x}") from None
    # not splitlines(): a JSON string may hold U+2028 and its like unescaped
    return parse_lines(text.split("\n"), file=name or path.name)


def load(extra: Iterable[Path], *, shipped: Path = SHIPPED) -> SuiteSet:
    """The shipped suites and the user's; an id used twice across files is refused."""
    about = json.loads((shipped / "suite.json").read_text(encoding="utf-8"))
    own = [file for given in extra for file in find_files(given)]
    files = [*(File(path=path, name=path.name) for path in sorted(shipped.glob("*.jsonl"))), *own]
    names = [file.name for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refused(
            "InvalidSuite",
            f"two suite files are called {twice[0]}: rename one, names tell them apart in the report",
        )
    items: list[Item] = []
    owner: dict[str, str] = {}
    digest = hashlib.sha256()
    for file in files:
        for item in read_file(file.path, name=file.name):
            other = owner.setdefault(item.origin.id, file.name)
            if other != file.name:
                raise Refused("InvalidSuite", f"{file.name}: id {item.origin.id!r} is already used in {other}")
            items.append(item)
        digest.update(f"{file.name}\0{hashlib.sha256(file.path.read_bytes()).hexdigest()}\n".encode())
    user_files = {file.name for file in own}
    return SuiteSet(
        name=about["name"],
        version=about["version"],
        sha256=digest.hexdigest(),
        valid_until=about["validUntil"],
        items=tuple(items),
        user_ids=frozenset(identity for identity, file in owner.items() if file in user_files),
    )

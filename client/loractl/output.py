"""Where words go: results on stdout in the form that was asked for, everything said about them on stderr.

On a terminal lines fit its width and carry colour; otherwise they are whole and plain, so that they can be piped and compared.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loractl.columns import Table, columns_of, table_of
from loractl.layout import cut, lay_out
from loractl.objects import kind_of, name_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["Format", "Output"]

Raw = Mapping[str, Any]
GOOD = r"(?<![\w-])(True|Ready|Stable|PASS|Pass|Succeeded|completed|Promoted|excellent|good|ok)(?![\w-])"
BAD = r"(?<![\w-])(False|Failed|Rejected|Aborted|Aborting|Degraded|FAIL|failed|poor|RolledBack|missing)(?![\w-])"
BUSY = (
    r"(?<![\w-])(Pending|Resolving|Merging|Validating|Preparing|Stepping|Paused|Testing|Switching|Replacing|Promoting|Suspended"
    r"|merging|validating|deploying|pending|cancelled|INCONCLUSIVE|InsufficientData|SKIPPED|fair|warning)(?![\w-])"
)


class Format(StrEnum):
    """-o."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    WIDE = "wide"
    NAME = "name"


class Output:
    """One command's two streams."""

    def __init__(self, form: Format = Format.TABLE) -> None:
        self.format = form

    @cached_property
    def console(self) -> "Console":
        """stdout."""
        return _console(stderr=False)

    @cached_property
    def errors(self) -> "Console":
        """stderr."""
        return _console(stderr=True)

    @property
    def width(self) -> int | None:
        """Cells of the terminal; None when stdout is none."""
        return self.console.width if self.console.is_terminal else None

    @property
    def now(self) -> datetime:
        """The client's clock: ages are counted here."""
        return datetime.now(UTC)

    @property
    def structured(self) -> bool:
        """Whether a program reads it."""
        return self.format in {Format.JSON, Format.YAML}

    def line(self, text: str = "") -> None:
        """One line of the result."""
        self.console.print(coloured(text), soft_wrap=True)

    def sentence(self, text: str) -> None:
        """A line of the result that is prose: on a terminal it breaks between words."""
        self.console.print(coloured(text), soft_wrap=not self.console.is_terminal)

    def say(self, text: str) -> None:
        """A remark beside the result."""
        self.errors.print(text, soft_wrap=True)

    @contextmanager
    def passing(self, text: str) -> Iterator[None]:
        """A word for whoever waits at a terminal; gone when the block ends."""
        if not sys.stderr.isatty():
            yield
            return
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
            yield
        finally:
            self._pass("")

    @contextmanager
    def steps(self) -> Iterator[Callable[[str], None]]:
        """As `passing`, for a wait with several steps: each takes the place of the one before; without a terminal each is a line."""
        told: set[str] = set()

        def tell(text: str) -> None:
            if sys.stderr.isatty():
                self._pass(cut(f"{text} …", self.errors.width - 1))
            elif text not in told:
                told.add(text)
                self.say(text)

        with self.passing(""):
            yield tell

    def _pass(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def data(self, content: Any) -> None:
        """JSON or YAML."""
        if self.format is Format.YAML:
            import yaml  # noqa: PLC0415 - only this form needs it

            sys.stdout.write(yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True, width=120))
        else:
            sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def table(self, table: Table) -> None:
        """Titles and rows."""
        for text in lay_out(table, width=self.width):
            self.line(text)

    def objects(self, objects: Sequence[Raw], *, namespaces: bool = False, one: bool = False) -> None:
        """Resources of one kind; `one`: a single one was asked for, so no list is put around it."""
        if self.structured:
            self.data(
                clean(objects[0]) if one else {"apiVersion": "v1", "kind": "List", "items": [clean(o) for o in objects]}
            )
        elif self.format is Format.NAME:
            for raw in objects:
                self.line(f"{kind_of(raw).lower()}.loraops.dev/{name_of(raw)}")
        elif objects:
            wide = self.format is Format.WIDE
            self.table(
                table_of(columns_of(kind_of(objects[0])), objects, now=self.now, wide=wide, namespaces=namespaces)
            )


def clean(raw: Raw) -> dict[str, Any]:
    """Without managedFields, which nobody reads (kubectl leaves them out too)."""
    meta = {key: value for key, value in (raw.get("metadata") or {}).items() if key != "managedFields"}
    return {**raw, "metadata": meta}


def coloured(text: str) -> "Text":
    """Words of state in their colour; rich leaves the colour out where there is no terminal."""
    from rich.text import Text  # noqa: PLC0415 - rich is for results, not for --help

    styled = Text(text)
    styled.highlight_regex(BUSY, "yellow")
    styled.highlight_regex(GOOD, "green")
    styled.highlight_regex(BAD, "red")
    return styled


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - as above

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _plain(content: Any) -> Any:
    """Only types that every YAML reader knows."""
    return json.loads(json.dumps(content))

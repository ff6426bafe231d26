"""What the person watching sees: numbered steps with their times, a live line of status, tables at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = ["Story", "story_of"]

INDENT = 3


@dataclass
class Story:
    """Prints steps as they happen and remembers how long each took."""

    console: Console = field(default_factory=lambda: Console(highlight=False))
    times: list[tuple[str, float]] = field(default_factory=list)
    _last: str = ""

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step."""
        number = len(self.times) + 1
        self.console.print(f"\n[bold cyan]{number:2d}[/] [bold]{title}[/]")
        started = time.monotonic()
        yield
        took = time.monotonic() - started
        self.times.append((title, took))
        self.console.print(f"   [green]done[/] in {took:.1f} s")

    def say(self, line: str) -> None:
        """An indented line; on a terminal it breaks between words and stays indented."""
        if self.console.is_terminal:
            self.console.print(Padding(Text.from_markup(line), (0, 0, 0, INDENT)))
        else:
            self.console.print(f"{' ' * INDENT}{line}", soft_wrap=True)

    def type_this(self, line: str) -> None:
        """A command to copy: never broken, no markup."""
        self.console.print(Text(f"{' ' * INDENT}{line}"), soft_wrap=True)

    def seen(self, resource: dict[str, Any]) -> None:
        """A line whenever what a resource says of itself has changed."""
        line = story_of(resource)
        if line and line != self._last:
            self.say(f"[dim]{time.strftime('%H:%M:%S')}[/] {escape(line)}")
            self._last = line

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """A table that fits a terminal."""
        table = Table(title=title, title_justify="left", show_lines=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        self.console.print(table)


def story_of(resource: dict[str, Any]) -> str:
    """Phase, message and a reason that says more than the phase, in one line; empty before there is a status."""
    status = resource.get("status", {})
    ready: dict[str, Any] = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    if not status.get("phase"):
        return ""
    words = [f"{resource['kind']} {resource['metadata']['name']}: {status['phase']}"]
    if ready.get("reason", status["phase"]) != status["phase"]:
        words.append(f"({ready['reason']})")
    return " ".join([*words, ready.get("message", "")]).strip()

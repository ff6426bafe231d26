"""`kubectl_complete-lora`: what kubectl runs for Tab after `kubectl lora`, and what it wants to hear.

    arguments: the words after `lora`, the last one being under the cursor (perhaps empty)
    stdout:    a candidate a line, `value TAB description`, then `:N`, how the shell shall go on (cobra's directives)

The candidates are loractl's own, asked for as fish does, because that form carries descriptions.
"""

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Sequence

from loractl.cli import app
from loractl.commands.local import HELP as LOCAL_VERBS

__all__ = ["FILE_OPTIONS", "complete", "main"]

FILES, NO_FILES = 0, 4
FILE_OPTIONS = frozenset({"-f", "--filename", "--kubeconfig", "--base", "--adapter", "--to"})
"""After these a path may follow, so that the shell offers files where we know nothing better."""


def complete(words: Sequence[str]) -> tuple[list[str], int]:
    """Candidates and directive for the words after `kubectl lora`."""
    *before, incomplete = words or [""]
    line = " ".join(["loractl", *map(shlex.quote, before), shlex.quote(incomplete) if incomplete else ""])
    asked = {
        "_LORACTL_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": line,
    }
    os.environ.update(asked)
    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
        app([], prog_name="loractl")
    found = [candidate for candidate in told.getvalue().splitlines() if candidate]
    path = bool(before) and (before[-1] in FILE_OPTIONS or before[0] in LOCAL_VERBS)
    return found, FILES if path and not found else NO_FILES


def main() -> None:
    """Console script."""
    candidates, directive = complete(sys.argv[1:])
    sys.stdout.write("".join(f"{one}\n" for one in [*candidates, f":{directive}"]))

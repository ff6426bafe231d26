"""What every refusal has in common: exit code 2, one clear line, the same from merge and inspect, and nothing left behind."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_job.cli import run

__all__ = ["Harm", "Place", "Row", "check_refused", "ids", "tree", "write_raw"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A base and an adapter that merge, until a test harms them."""

    root: Path
    base: Path
    adapter: Path

    @property
    def output(self) -> Path:
        return self.root / "out"

    def arguments(self, command: str) -> list[str]:
        sources = [command, "--base", str(self.base), "--adapter", str(self.adapter)]
        return sources if command == "inspect" else [*sources, "--output", str(self.output)]


Harm = Callable[[Place], object]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One refusal. `words` must all be in the sentence: the file, tensor or field, and what is wrong."""

    title: str
    reason: str
    words: tuple[str, ...]
    harm: Harm


def ids(rows: Sequence[Row]) -> list[str]:
    return [row.title for row in rows]


def tree(root: Path) -> dict[str, int]:
    """Everything below a directory; a file's change time tells that it was written."""
    return {
        str(path.relative_to(root)): path.lstat().st_ctime_ns if not path.is_dir() else 0 for path in root.rglob("*")
    }


def check_refused(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    *,
    reason: str,
    words: Sequence[str],
    commands: Sequence[str] = ("merge", "inspect"),
    options: Sequence[str] = (),
) -> None:
    before = tree(place.root)
    for command in commands:
        capsys.readouterr()
        assert run([*place.arguments(command), *options]) == 2, command
        printed = capsys.readouterr()
        lines = printed.err.splitlines()
        assert len(lines) == 1, printed.err
        assert lines[0].startswith(f"lora-job: {reason}: "), lines[0]
        assert lines[0].isprintable()
        assert len(lines[0]) < 1_200
        assert [word for word in words if word not in lines[0]] == [], lines[0]
        assert "Traceback" not in printed.out
        assert tree(place.root) == before, command


def write_raw(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> None:
    """A safetensors file exactly as told: header as JSON, or as bytes; `length` overrides the true one."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.unlink(missing_ok=True)
    path.write_bytes(size.to_bytes(8, "little") + text + data)

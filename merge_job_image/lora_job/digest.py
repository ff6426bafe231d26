"""The digest of a model directory: one name for exactly these files, whoever stored them and wherever.

sha256 over lines `path NUL sha256-of-file LF`, paths relative with `/`, sorted as UTF-8 bytes; `merge.json`, `validation/`, `.cache/`
and `.git/` do not count. Reading only: no torch, because the serving pod's check runs this in the operator's small image.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lora_job.files import FileFact, list_files
from lora_job.hashing import HashedFile, Hasher
from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["begin_files", "combine", "directory_digest", "file_sha256", "hash_files", "parse_digest"]

Tick = Callable[[int], None]


def _ignore(_bytes: int) -> None:
    """Nobody is watching."""


def parse_digest(text: str, *, where: str) -> str:
    """`sha256:` and 64 hex digits, lower case."""
    value = text.strip().lower()
    digits = value.removeprefix("sha256:")
    if not value.startswith("sha256:") or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise Refused(Reason.INVALID_OPTION, f"{where}: expected sha256: and 64 hexadecimal digits, found {text!r}")
    return value


def file_sha256(path: str | Path) -> str:
    """Lower-case hex of one file, without a thread."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def begin_files(facts: Iterable[FileFact], *, hasher: Hasher, tick: Tick = _ignore) -> dict[str, HashedFile]:
    """By relative path, the largest first: whoever comes last is alone."""
    listed = sorted(facts, key=lambda fact: -fact.size)
    return {fact.path: hasher.begin(fact.location, size=fact.size, tick=tick) for fact in listed}


def hash_files(facts: Iterable[FileFact], *, tick: Tick = _ignore, threads: int = 4) -> dict[str, str]:
    """sha256 by relative path."""
    with Hasher(threads=min(threads, os.cpu_count() or 1)) as hasher:
        begun = begin_files(facts, hasher=hasher, tick=tick)
        return {path: file.sha256.result() for path, file in begun.items()}


def combine(hashes: dict[str, str]) -> str:
    """The directory's digest from its files' digests."""
    state = hashlib.sha256()
    for path in sorted(hashes, key=lambda name: name.encode()):
        state.update(path.encode() + b"\0" + hashes[path].encode() + b"\n")
    return f"sha256:{state.hexdigest()}"


def directory_digest(root: Path, *, tick: Tick = _ignore) -> str:
    """`sha256:…` of a model directory."""
    return combine(hash_files(list_files(root), tick=tick))

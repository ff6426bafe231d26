"""The digest of a model directory: one name for exactly these files, whoever stored them and wherever.

sha256 over lines `path NUL sha256-of-file LF`, paths relative with `/`, sorted as UTF-8 bytes; `merge.json`, `validation/`, `.cache/`
and `.git/` do not count. Reading only: no torch, because the serving pod's check runs this in the operator's small image.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lora_job.files import FileFact, list_files
from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["combine", "directory_digest", "file_sha256", "hash_files", "parse_digest"]

BLOCK = 2**18
"""Stays in a core's cache between being read and being hashed."""
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


def file_sha256(path: str | Path, *, tick: Tick = _ignore) -> str:
    """Lower-case hex of one file, read with a small buffer."""
    state = hashlib.sha256()
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    try:
        with Path(path).open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                state.update(view[:count])
                tick(count)
    except PermissionError:
        raise Refused(Reason.SOURCE_NOT_READABLE, f"{path}: not readable by user {os.geteuid()}") from None
    return state.hexdigest()


def hash_files(facts: Iterable[FileFact], *, tick: Tick = _ignore, files: int = 4) -> dict[str, str]:
    """sha256 by relative path; a few files at once, because hashing releases the interpreter lock."""
    listed = sorted(facts, key=lambda fact: -fact.size)
    with ThreadPoolExecutor(max_workers=min(files, os.cpu_count() or 1)) as pool:
        hashes = pool.map(lambda fact: file_sha256(fact.location, tick=tick), listed)
        return {fact.path: value for fact, value in zip(listed, hashes, strict=True)}


def combine(hashes: dict[str, str]) -> str:
    """The directory's digest from its files' digests."""
    state = hashlib.sha256()
    for path in sorted(hashes, key=lambda name: name.encode()):
        state.update(path.encode() + b"\0" + hashes[path].encode() + b"\n")
    return f"sha256:{state.hexdigest()}"


def directory_digest(root: Path, *, tick: Tick = _ignore) -> str:
    """`sha256:…` of a model directory."""
    return combine(hash_files(list_files(root), tick=tick))

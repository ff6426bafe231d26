"""Digests of source directories, remembered: one read per base, not one per merge.

The key is path, size, mtime and inode of every file, so that a directory somebody wrote to is simply another key. A lost or broken
cache entry costs a read and nothing else.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lora_job.digest import hash_files
from lora_job.files import FileFact
from lora_job.progress import Progress

__all__ = ["cached_hashes"]


def _key(facts: Sequence[FileFact]) -> str:
    seen = [[fact.path, fact.location, fact.size, fact.mtime, fact.inode] for fact in facts]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _remembered(entry: Path, facts: Sequence[FileFact]) -> dict[str, str] | None:
    try:
        hashes = json.loads(entry.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(hashes, dict) and set(hashes) == {fact.path for fact in facts}
    return (
        hashes if complete and all(isinstance(value, str) and len(value) == 64 for value in hashes.values()) else None
    )


def _remember(entry: Path, hashes: dict[str, str]) -> None:
    handle, name = tempfile.mkstemp(dir=entry.parent, prefix=".new-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(hashes, file)
        os.fchmod(file.fileno(), 0o644)
    Path(name).replace(entry)


def cached_hashes(facts: Sequence[FileFact], *, directory: Path, name: str) -> dict[str, str]:
    """sha256 of every file by path: from the cache in `directory`, or by reading."""
    entry = directory / f"{_key(facts)}.json"
    known = _remembered(entry, facts)
    if known is not None:
        return known
    with Progress(f"read {name}", total=sum(fact.size for fact in facts), unit="B") as progress:
        hashes = hash_files(facts, tick=progress.advance)
    _remember(entry, hashes)
    return hashes

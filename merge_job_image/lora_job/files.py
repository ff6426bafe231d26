"""What a source directory really holds: its regular files, with links resolved and kept inside.

A Hugging Face cache snapshot is made of links into `blobs` beside it; every other link that leaves the directory is refused,
because a checkpoint must not be able to make a Job read (and publish) somebody else's file.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_job.outcome import Infrastructure, Refused
from lora_job.reasons import Reason

__all__ = [
    "FileFact",
    "check_directory",
    "check_regular",
    "contents",
    "inside",
    "list_files",
    "nearest_directory",
    "unchanged",
]

IGNORED_FILES = frozenset({"merge.json"})
IGNORED_DIRECTORIES = frozenset({"validation", ".cache", ".git"})
DEPTH_LIMIT = 32
NAMES_SHOWN = 6


@dataclass(frozen=True, kw_only=True, order=True)
class FileFact:
    """One file as it was seen; equal facts mean that nobody wrote to it meanwhile."""

    path: str
    """Relative to the root, with `/`."""
    location: str
    size: int
    mtime: int
    """Nanoseconds."""
    inode: int
    device: int


def contents(directory: Path) -> str:
    """What a directory holds, for a sentence: "holds v1/, v2/ and 3 more"; hidden files are left out."""
    try:
        found = sorted(_shown(entry) for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError:
        return "cannot be read"
    if not found:
        return "is empty"
    more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
    return f"holds {', '.join(found[:NAMES_SHOWN])}{more}"


def _shown(entry: Path) -> str:
    name = entry.name if entry.name.isprintable() and len(entry.name) <= 80 else ascii(entry.name)[:80]
    return f"{name}/" if entry.is_dir() else name


def nearest_directory(path: Path) -> Path:
    """The path itself, or the first directory above it that exists."""
    return next((place for place in (path, *path.parents) if place.is_dir()), Path("/"))


def check_directory(path: Path, *, what: str) -> Path:
    """An existing, readable directory, or a refusal that says what is wrong with it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        above = nearest_directory(path)
        raise Refused(
            Reason.SOURCE_NOT_FOUND,
            f"{what} {path}: there is no such directory; check the path ({above} {contents(above)})",
        ) from None
    except OSError as error:
        raise Refused(Reason.SOURCE_NOT_READABLE, f"{what} {path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise Refused(
            Reason.SOURCE_NOT_FOUND,
            f"{what} {path}: expected a directory, found a file; name the directory that holds it",
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise Refused(
            Reason.SOURCE_NOT_READABLE, f"{what} {path}: not readable by user {os.geteuid()}; fix its mode or owner"
        )
    return path


def check_regular(path: Path) -> None:
    """Refuses what is there and is no file: opening a pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise Refused(Reason.NOT_A_REGULAR_FILE, f"{path}: expected a regular file")


def _blobs(root: Path) -> Path | None:
    """`…/models--org--name/blobs` when root is `…/models--org--name/snapshots/<revision>`."""
    real = root.resolve()
    if real.parent.name == "snapshots" and real.parent.parent.name.startswith("models--"):
        return real.parent.parent / "blobs"
    return None


def inside(path: Path, *, root: Path) -> Path:
    """Where a path really leads; refused when that is outside of the root."""
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError:
        raise Refused(Reason.SOURCE_NOT_FOUND, f"{path}: a symbolic link that leads nowhere") from None
    except (OSError, RuntimeError) as error:
        raise Refused(Reason.SOURCE_NOT_READABLE, f"{path}: cannot be followed: {error}") from None
    allowed = [root.resolve(), *([blobs] if (blobs := _blobs(root)) else [])]
    if any(real == place or place in real.parents for place in allowed):
        return real
    raise Refused(
        Reason.SYMLINK_ESCAPES, f"{path}: a symbolic link leads outside of {root}; replace it by the file itself"
    )


def _check_name(path: Path, name: str) -> None:
    if not name.isascii() and name != name.encode(errors="replace").decode():
        raise Refused(
            Reason.INVALID_SOURCE, f"{path}: its name is not UTF-8, so it has no place in a digest; rename it"
        )
    if name.count("/") > DEPTH_LIMIT:
        raise Refused(Reason.INVALID_SOURCE, f"{path}: more than {DEPTH_LIMIT} directories deep; not a model directory")


def _walk(directory: Path, *, root: Path, prefix: str, above: frozenset[Path]) -> Iterator[tuple[str, Path]]:
    real = directory.resolve()
    if real in above:
        raise Refused(Reason.SYMLINK_ESCAPES, f"{directory}: a symbolic link leads back to a directory above it")
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        raise Refused(Reason.SOURCE_NOT_READABLE, f"{directory}: cannot be read: {error.strerror}") from None
    for entry in entries:
        path, name = Path(entry.path), f"{prefix}{entry.name}"
        _check_name(path, name)
        target = inside(path, root=root) if entry.is_symlink() else path
        if target.is_dir():
            if not (prefix == "" and entry.name in IGNORED_DIRECTORIES):
                yield from _walk(path, root=root, prefix=f"{name}/", above=above | {real})
        elif not (prefix == "" and entry.name in IGNORED_FILES):
            yield name, target


def _fact(name: str, location: Path) -> FileFact:
    try:
        found = location.stat()
    except OSError as error:
        raise Refused(Reason.SOURCE_NOT_READABLE, f"{location}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise Refused(Reason.NOT_A_REGULAR_FILE, f"{location}: expected a regular file, found a device, pipe or socket")
    return FileFact(
        path=name,
        location=str(location),
        size=found.st_size,
        mtime=found.st_mtime_ns,
        inode=found.st_ino,
        device=found.st_dev,
    )


def list_files(root: Path) -> tuple[FileFact, ...]:
    """Every file that counts for the digest, sorted by path as UTF-8 bytes."""
    facts = [_fact(name, location) for name, location in _walk(root, root=root, prefix="", above=frozenset())]
    return tuple(sorted(facts, key=lambda fact: fact.path.encode()))


def unchanged(before: tuple[FileFact, ...], *, root: Path) -> None:
    """Infrastructure error when a source was written to since `before` was listed."""
    after = list_files(root)
    if after != before:
        differing = sorted({fact.path for fact in set(before) ^ set(after)})
        raise Infrastructure(
            Reason.SOURCE_CHANGED,
            f"{root}: {differing[0]} changed while it was being read; stop whatever writes there and run again",
        )

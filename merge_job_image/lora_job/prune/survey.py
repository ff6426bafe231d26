"""What lies in a store, and which of it nobody names: artifacts, half-written directories, cached sources. Reads only.

    <store>/<namespace>/<name>/<buildHash>/            an artifact: kept when named by path or digest
    <store>/<namespace>/<name>/.<buildHash>.partial/   a merge's working directory: kept while its lock is held
    <store>/<namespace>/<name>/.<buildHash>.pruning/   what an interrupted removal left
    <store>/.sources/<digest>/                         a cached source: kept when an artifact was made of it

Whoever calls knows the cluster and passes the names; a directory of any other shape is left alone. Nothing young is touched, because
an artifact may have been published after the names were read.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

__all__ = ["Entry", "Kind", "Named", "survey"]

BUILD = re.compile(r"^[0-9a-f]{16}$")
PARTIAL = re.compile(r"^\.(?P<of>.+)\.partial$")
LEFTOVER = re.compile(r"^(\..+\.pruning|[0-9a-f]{16}\.deleting)$")
DIGEST = re.compile(r"^(sha256[:-])?(?P<hex>[0-9a-f]{64})$")
SOURCES = ".sources"


class Kind(StrEnum):
    """What an entry is."""

    ARTIFACT = "artifact"
    PARTIAL = "partial"
    LEFTOVER = "leftover"
    SOURCE = "source"


@dataclass(frozen=True, kw_only=True)
class Named:
    """What the cluster still needs, all of one namespace."""

    namespace: str
    artifacts: frozenset[str] = field(default_factory=frozenset)
    """`<name>/<buildHash>`."""
    digests: frozenset[str] = field(default_factory=frozenset)
    """`sha256:…` of artifacts that a revision serves or may return to."""
    unfinished: frozenset[str] = field(default_factory=frozenset)
    """Names of LoRAAdapters that have published nothing yet: all of their directory is kept."""
    sources: frozenset[str] = field(default_factory=frozenset)
    """Digests of sources that a spec names."""
    all_sources: bool = False
    """True where somebody may be fetching a source whose digest is not known yet."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One directory. `keep` is why it stays; empty: nobody needs it."""

    kind: Kind
    path: Path
    bytes: int
    digest: str
    keep: str


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    digest: str
    sources: frozenset[str]


def survey(store: Path, *, named: Named, now: float, min_age: float) -> list[Entry]:
    """Every entry of this namespace and every cached source, by path. `now` and `min_age` in seconds."""
    entries: list[Entry] = []
    for owner in _directories(store / named.namespace):
        entries += _of_adapter(owner, named=named, now=now, min_age=min_age)
    gone = {entry.path for entry in entries if not entry.keep}
    used = _sources_in_use(store, gone=gone) | named.sources
    for source in _directories(store / SOURCES):
        found = _of_source(source, used=used, named=named, now=now, min_age=min_age)
        entries += [] if found is None else [found]
    return sorted(entries, key=lambda entry: entry.path)


def lock_is_free(path: Path) -> bool:
    """Whether no merge holds the directory (publish.py locks the directory itself). Doubt counts as held."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _directories(parent: Path) -> Iterator[Path]:
    """Real directories only: a link may lead anywhere."""
    if not parent.is_dir() or parent.is_symlink():
        return
    for entry in sorted(parent.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield entry


def _of_adapter(owner: Path, *, named: Named, now: float, min_age: float) -> Iterator[Entry]:
    for path in _directories(owner):
        if BUILD.match(path.name):
            found = _artifact(path, named=named, young=_young(path, now=now, min_age=min_age))
        elif PARTIAL.match(path.name):
            found = Entry(kind=Kind.PARTIAL, path=path, bytes=_size(path), digest="", keep=_partial(path, named=named))
        elif LEFTOVER.match(path.name):
            found = Entry(kind=Kind.LEFTOVER, path=path, bytes=_size(path), digest="", keep="")
        else:
            continue
        yield found


def _artifact(path: Path, *, named: Named, young: str) -> Entry:
    manifest = _manifest(path)
    owner = path.parent.name
    digest = "" if manifest is None else manifest.digest
    if manifest is None:
        keep = "it has no readable merge.json, so it is not known to be ours"
    elif f"{owner}/{path.name}" in named.artifacts:
        keep = f"LoRAAdapter {owner} names it"
    elif digest in named.digests:
        keep = "a revision names its digest"
    elif owner in named.unfinished:
        keep = f"LoRAAdapter {owner} has not published yet and may adopt it"
    else:
        keep = young
    return Entry(kind=Kind.ARTIFACT, path=path, bytes=_size(path), digest=digest, keep=keep)


def _partial(path: Path, *, named: Named) -> str:
    if path.parent.name in named.unfinished:
        return f"LoRAAdapter {path.parent.name} may go on with it"
    return "" if lock_is_free(path) else "a merge is writing it"


def _of_source(path: Path, *, used: frozenset[str], named: Named, now: float, min_age: float) -> Entry | None:
    match, partial = DIGEST.match(path.name), PARTIAL.match(path.name)
    if partial is not None or LEFTOVER.match(path.name):
        keep = "" if lock_is_free(path) else "a fetch is writing it"
        kind = Kind.PARTIAL if partial else Kind.LEFTOVER
        keep = keep or ("a fetch may go on with it" if named.all_sources else "")
        return Entry(kind=kind, path=path, bytes=_size(path), digest="", keep=keep)
    if match is None:
        return None
    digest = f"sha256:{match['hex']}"
    if digest in used:
        keep = "an artifact or a spec names it"
    elif named.all_sources:
        keep = "a LoRAAdapter has not found its sources yet"
    else:
        keep = _young(path, now=now, min_age=min_age)
    return Entry(kind=Kind.SOURCE, path=path, bytes=_size(path), digest=digest, keep=keep)


def _sources_in_use(store: Path, *, gone: set[Path]) -> frozenset[str]:
    """Digests of bases and adapters of every artifact that stays, in whichever namespace: the cache is shared."""
    used: set[str] = set()
    for namespace in _directories(store):
        if namespace.name.startswith("."):
            continue
        for path in (found for owner in _directories(namespace) for found in _directories(owner)):
            manifest = _manifest(path) if path not in gone else None
            used |= set() if manifest is None else manifest.sources
    return frozenset(used)


def _manifest(path: Path) -> _Manifest | None:
    try:
        raw = json.loads((path / "merge.json").read_text(encoding="utf-8"))
        inputs = [raw["base"], *raw["adapters"]]
        return _Manifest(digest=str(raw["output"]["digest"]), sources=frozenset(str(one["digest"]) for one in inputs))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _young(path: Path, *, now: float, min_age: float) -> str:
    age = now - path.stat().st_mtime
    return f"it is younger than {min_age:.0f} s" if age < min_age else ""


def _size(path: Path) -> int:
    total = 0
    for root, _, files in os.walk(path):
        for name in files:
            try:
                total += (Path(root) / name).lstat().st_size
            except FileNotFoundError:  # a merge renames its files meanwhile
                continue
    return total

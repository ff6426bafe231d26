"""Digests of base and adapters, which name a build. The base's costs a read of the whole base: it is made while the merge reads the same
files, unless fetch made it before or something is there already that must be compared with it first.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lora_job.digest import combine, hash_files
from lora_job.files import FileFact
from lora_job.merge.recipe import Recipe, build_hash
from lora_job.outcome import Refused, Terminated
from lora_job.progress import Progress
from lora_job.reasons import Reason
from lora_job.strict_json import read_object

__all__ = ["SourceDigests"]


class SourceDigests:
    """`with digests: …` reads the base in the background; `base` and `build` wait for it."""

    def __init__(
        self,
        roots: Sequence[Path],
        facts: Sequence[Sequence[FileFact]],
        *,
        recipe: Recipe,
        fetch_report: Path | None,
    ) -> None:
        """Base first, then the adapters, which are small and read at once."""
        reported = _reported(fetch_report)
        known = [
            _hashes_if_unchanged(reported.get(str(root)), listed) for root, listed in zip(roots, facts, strict=True)
        ]
        self._recipe = recipe
        self._root, self._facts = roots[0], facts[0]
        self._base: Future[str] = Future()
        self._begun = known[0] is not None
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digest")
        if known[0] is not None:
            self._base.set_result(combine(known[0]))
        self.adapters = tuple(
            combine(hashes) if hashes is not None else _read(root, listed)
            for root, listed, hashes in zip(roots[1:], facts[1:], known[1:], strict=True)
        )

    def read_base(self) -> None:
        """Now, with progress."""
        if not self._begun:
            self._begun = True
            self._base.set_result(_read(self._root, self._facts))

    def __enter__(self) -> Self:
        if not self._begun:
            self._base = self._thread.submit(self._read_quietly)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.shutdown(cancel_futures=True)

    def _read_quietly(self) -> str:
        return combine(hash_files(self._facts, tick=self._check))

    def _check(self, _bytes: int) -> None:
        if self._stop.is_set():
            raise Terminated(Reason.TERMINATED, "stopped while reading the base; nothing was published")

    @property
    def base(self) -> str:
        return self._base.result()

    def build(self) -> str:
        """The hash that names the build."""
        return build_hash(self._recipe, base=self.base, adapters=self.adapters)


def _read(root: Path, facts: Sequence[FileFact]) -> str:
    with Progress(f"read {root.name}", total=sum(fact.size for fact in facts), unit="B") as progress:
        return combine(hash_files(facts, tick=progress.advance))


def _reported(path: Path | None) -> dict[str, list[dict[str, Any]]]:
    """Files by source directory as `lora-job fetch` saw them."""
    if path is None:
        return {}
    report = read_object(path, reason=Reason.INVALID_OPTION)
    sources = report.get("sources")
    if not isinstance(sources, list) or not all(_is_listing(item) for item in sources):
        raise Refused(
            Reason.INVALID_OPTION,
            f"--fetch-report: {path}: field 'sources': expected a list of sources with path and files",
        )
    return {item["path"]: item["files"] for item in sources}


def _is_listing(item: object) -> bool:
    """What `lora-job fetch` writes about one source."""
    if not isinstance(item, dict) or not isinstance(item.get("path"), str) or not isinstance(item.get("files"), list):
        return False
    texts, numbers = ("path", "sha256"), ("size", "mtime", "inode")
    return all(
        isinstance(file, dict)
        and all(isinstance(file.get(name), str) for name in texts)
        and all(isinstance(file.get(name), int) for name in numbers)
        for file in item["files"]
    )


def _hashes_if_unchanged(
    reported: Sequence[Mapping[str, Any]] | None, facts: Sequence[FileFact]
) -> dict[str, str] | None:
    """fetch's hashes, believed only while size, mtime and inode of every file are what fetch saw."""
    if not reported:
        return None
    seen = {(entry["path"], entry["size"], entry["mtime"], entry["inode"]) for entry in reported}
    if seen != {(fact.path, fact.size, fact.mtime, fact.inode) for fact in facts}:
        return None
    return {entry["path"]: entry["sha256"] for entry in reported}

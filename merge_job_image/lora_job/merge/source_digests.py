"""Digests of base and adapters, which name a build. The base's costs a read of the whole base: it begins before anything else, while
Python's libraries are loaded and the merge reads the same files, unless fetch made it before. Imports no torch, for that reason.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lora_job.digest import combine, hash_files
from lora_job.files import FileFact, list_files
from lora_job.merge.recipe import build_hash
from lora_job.merge.request import MergeRequest
from lora_job.outcome import Refused, Terminated
from lora_job.progress import Progress
from lora_job.reasons import Reason
from lora_job.strict_json import read_object

__all__ = ["SourceDigests"]

INTERVAL_SECONDS = 0.2


class SourceDigests:
    """`with SourceDigests(request) as digests: …`; the base is read in the background from now on, `base` and `build` wait for it."""

    def __init__(self, request: MergeRequest) -> None:
        self.facts = tuple(list_files(root) for root in request.roots)
        """The files of base and adapters, in that order, as they were before anything was read."""
        reported = _reported(request.fetch_report)
        self._known = [
            _hashes_if_unchanged(reported.get(str(root)), listed)
            for root, listed in zip(request.roots, self.facts, strict=True)
        ]
        self._request = request
        self._base: Future[str] = Future()
        self._done = 0
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digest")

    def __enter__(self) -> Self:
        known = self._known[0]
        if known is None:
            self._base = self._thread.submit(self._read_base)
        else:
            self._base.set_result(combine(known))
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.shutdown(cancel_futures=True)

    def _read_base(self) -> str:
        return combine(hash_files(self.facts[0], tick=self._ticked, files=self._request.workers))

    def _ticked(self, count: int) -> None:
        if self._stop.is_set():
            raise Terminated(Reason.TERMINATED, "stopped while reading the base; nothing was published")
        self._done += count

    def show_base(self) -> None:
        """Waits for the base's digest, with progress."""
        if self._base.done():
            return
        root, total = self._request.base, sum(fact.size for fact in self.facts[0])
        with Progress(f"read {root.name}", total=total, unit="B") as progress:
            shown = 0
            while wait((self._base,), timeout=INTERVAL_SECONDS).not_done:
                done = self._done
                progress.advance(done - shown)
                shown = done

    @cached_property
    def adapters(self) -> tuple[str, ...]:
        """They are small and read when they are asked for."""
        listed = zip(self._request.adapters, self.facts[1:], self._known[1:], strict=True)
        return tuple(combine(known) if known is not None else _read(root, facts) for root, facts, known in listed)

    @property
    def base(self) -> str:
        return self._base.result()

    def build(self) -> str:
        """The hash that names the build."""
        return build_hash(self._request.recipe, base=self.base, adapters=self.adapters)


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

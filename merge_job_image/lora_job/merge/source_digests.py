"""Digests of base and adapters, which name a build. The base's costs a read of the whole base: it begins before anything else, while
Python's libraries are loaded and the merge reads the same files, unless fetch made it before. Imports no torch, for that reason.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lora_job.digest import begin_files, combine, hash_files
from lora_job.files import FileFact, list_files
from lora_job.hashing import HashedFile, Hasher
from lora_job.merge.recipe import build_hash
from lora_job.merge.request import MergeRequest
from lora_job.outcome import Refused
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
        self._begun: Mapping[str, HashedFile] = {}
        self.hasher = Hasher(threads=request.workers)
        """What hashes the base: a file of the output that is hashed beside one of the base costs half."""

    def __enter__(self) -> Self:
        if self._known[0] is None:
            self._begun = begin_files(self.facts[0], hasher=self.hasher)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hasher.__exit__(kind, error, trace)

    def show_base(self) -> None:
        """Waits for the base's digest, with progress."""
        begun = self._begun.values()
        digests = [file.sha256 for file in begun]
        if all(digest.done() for digest in digests):
            return
        with Progress(f"read {self._request.base.name}", total=sum(file.size for file in begun), unit="B") as progress:
            shown = 0
            while (state := wait(digests, timeout=INTERVAL_SECONDS, return_when=FIRST_EXCEPTION)).not_done:
                if any(digest.exception() for digest in state.done):
                    return  # `base` raises it
                done = sum(file.hashed for file in begun)
                progress.advance(done - shown)
                shown = done

    @cached_property
    def adapters(self) -> tuple[str, ...]:
        """They are small and read when they are asked for."""
        listed = zip(self._request.adapters, self.facts[1:], self._known[1:], strict=True)
        return tuple(combine(known) if known is not None else _read(root, facts) for root, facts, known in listed)

    @cached_property
    def base(self) -> str:
        known = self._known[0]
        return combine(known or {path: file.sha256.result() for path, file in self._begun.items()})

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

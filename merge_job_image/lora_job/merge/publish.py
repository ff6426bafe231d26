"""From a partial directory to a published model by one rename; a crash never leaves half a model under a final name.

.<name>.partial-<buildHash>/  ─ shards, sidecars, index, merge.json, all fsynced ─►  rename  ─►  <name>/
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_job.digest import digest_directory
from lora_job.merge.plan import Plan
from lora_job.outcome import Infrastructure, Refused
from lora_job.tensors import INDEX, Checkpoint

__all__ = ["adopt", "locked", "partial_directory", "publish", "refuse_bad_target", "write_index", "write_sidecars"]


def refuse_bad_target(target: Path, *, sources: list[Path]) -> None:
    """Never into a source: compared by device and inode, not by name."""
    for source in sources:
        for place in (target, target.parent):
            if place.exists() and os.path.samestat(place.stat(), source.stat()):
                raise Refused(
                    "OutputIsSource", f"{target}: would write into the source {source}; choose another --output"
                )


def adopt(target: Path, *, build_hash: str) -> dict[str, Any] | None:
    """The manifest of a finished directory of the very same build that still verifies; None: nothing is there.

    Raises:
        Refused: OutputNotEmpty when something else lies there.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    try:
        manifest = json.loads((target / "merge.json").read_text(encoding="utf-8"))
        same = manifest.get("buildHash") == build_hash
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        raise Refused("OutputNotEmpty", f"{target} exists and is not this build; choose another --output or remove it")
    if digest_directory(target) != manifest["output"]["digest"]:
        raise Refused("OutputNotEmpty", f"{target} is this build but was changed since; remove it and merge again")
    return dict(manifest)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """One writer per output."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = (target.parent / f".{target.name}.lock").open("w")
    except OSError as error:
        raise Infrastructure("StoreNotWritable", f"{target.parent}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Infrastructure(
                "Locked", f"{target}: another merge writes there; try again when it has ended"
            ) from error
        yield


def partial_directory(target: Path, *, build_hash: str) -> Path:
    """The one of an earlier try of the same build is gone on with; those of other builds are removed."""
    wanted = target.parent / f".{target.name}.partial-{build_hash}"
    for other in target.parent.glob(f".{target.name}.partial-*"):
        if other != wanted:
            shutil.rmtree(other, ignore_errors=True)
    wanted.mkdir(mode=0o755, exist_ok=True)
    for leftover in wanted.glob(".*.partial"):
        leftover.unlink()
    return wanted


def write_sidecars(partial: Path, files: Mapping[str, bytes | Path]) -> None:
    """Small files, each flushed to the disk."""
    for name, content in files.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        _write(partial / name, data)


def write_index(partial: Path, plan: Plan, base: Checkpoint) -> None:
    """Shards and total_size (in bytes) as they are now."""
    if not base.has_index:
        return
    raw = json.loads((base.root / INDEX).read_text(encoding="utf-8"))
    total = sum(operation.nbytes for operation in plan.operations)
    raw["metadata"] = {**raw.get("metadata", {}), "total_size": total}
    raw["weight_map"] = {
        operation.source.name: shard for shard, operations in plan.shards.items() for operation in operations
    }
    _write(partial / INDEX, json.dumps(raw, indent=2).encode() + b"\n")


def publish(partial: Path, target: Path, *, manifest: Mapping[str, Any]) -> None:
    """merge.json last, then everything to the disk, then one rename."""
    _write(partial / "merge.json", json.dumps(manifest, indent=1, ensure_ascii=False).encode() + b"\n")
    partial.chmod(0o755)
    _sync(partial)
    if target.exists():
        target.rmdir()  # empty: adopt() has looked
    partial.rename(target)
    _sync(target.parent)


def _write(path: Path, data: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Infrastructure("NoSpace" if error.errno == 28 else "WriteFailed", f"{path}: {error.strerror}") from error
    path.chmod(0o644)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

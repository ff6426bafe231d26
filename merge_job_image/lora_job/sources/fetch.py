"""`lora-job fetch`: sources are there, readable, complete, what their digests say, and the store has room for the result.

Sources on claims are used in place; the only thing written is the digest cache in the store and the report.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_job.digest import combine
from lora_job.files import FileFact, check_directory, contents, inside, list_files, nearest_directory, unchanged
from lora_job.merge.recipe import OutputDtype, Quantization
from lora_job.model_config import read_config
from lora_job.outcome import Done, Infrastructure, Refused
from lora_job.reasons import Reason
from lora_job.sources.cache import cached_hashes
from lora_job.sources.output_size import output_bytes
from lora_job.sources.source import Role, Source
from lora_job.tensors import read_checkpoint, read_header

__all__ = ["fetch"]

MIB = 2**20
MERGE_MEMORY = 1024 * MIB  # interpreter, torch and the buffers of all workers, with room for the page cache to breathe
VALIDATE_MEMORY = 2048 * MIB
SIDECARS = 64 * MIB
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A source as it was found."""

    name: str
    role: Role
    path: Path
    digest: str
    facts: tuple[FileFact, ...]
    hashes: Mapping[str, str]
    weights_bytes: int
    model_type: str

    @property
    def bytes(self) -> int:
        return sum(fact.size for fact in self.facts)

    def summary(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "role": str(self.role),
            "path": str(self.path),
            "digest": self.digest,
            "bytes": self.bytes,
            "files": len(self.facts),
        }

    def report(self) -> dict[str, Any]:
        files = [
            {
                "path": fact.path,
                "size": fact.size,
                "mtime": fact.mtime,
                "inode": fact.inode,
                "sha256": self.hashes[fact.path],
            }
            for fact in self.facts
        ]
        return self.summary() | {"files": files}


def _role(source: Source, root: Path) -> Role:
    return source.role or (Role.ADAPTER if (root / "adapter_config.json").exists() else Role.BASE)


def _check_place(source: Source, *, claim: Path, root: Path) -> None:
    """In words of the manifest: where a Job has its claims mounted is nothing that its author can know."""
    if root.is_dir():
        return
    found = "it is a file" if root.exists() else "there is no such directory"
    above = nearest_directory(root)
    place = above.relative_to(claim).as_posix() if above != claim else "its root"
    raise Refused(
        Reason.SOURCE_NOT_FOUND,
        f"source {source.name}: claim {source.claim}, path {source.path!r}: {found}; {place} {contents(above)}; correct pvc.path",
    )


def _read_adapter_weights(source: Source, root: Path) -> int:
    path = root / ADAPTER_WEIGHTS
    if (root / "adapter_model.bin").exists() and not path.exists():
        raise Refused(
            Reason.PICKLES_ONLY,
            f"{root}: the adapter exists only as adapter_model.bin, a pickle, which can run code; save it as safetensors",
        )
    for needed in (root / "adapter_config.json", path):
        if not needed.is_file():
            raise Refused(
                Reason.SOURCE_NOT_FOUND,
                f"source {source.name}: claim {source.claim}, path {source.path!r}: {needed.name} is missing, it {contents(root)}; "
                "expected an adapter directory as PEFT's save_pretrained writes it",
            )
    inside(path, root=root)
    return read_header(path).file_size


def _looked_at(source: Source, *, claims: Path, cache: Path) -> Fetched:
    root = source.directory(claims)
    claim = check_directory(claims / source.claim, what=f"claim {source.claim}")
    _check_place(source, claim=claim, root=root)
    check_directory(root, what=f"source {source.name}")
    inside(root, root=claim)
    role = _role(source, root)
    # Headers before digests: a truncated file is told in a second, not after reading fifteen gigabytes.
    model_type = "" if role is Role.ADAPTER else read_config(root).model_type
    weights = _read_adapter_weights(source, root) if role is Role.ADAPTER else read_checkpoint(root).data_bytes
    facts = list_files(root)
    hashes = cached_hashes(facts, directory=cache, name=source.name)
    unchanged(facts, root=root)
    digest = combine(dict(hashes))
    if source.digest and digest != source.digest:
        raise Refused(
            Reason.DIGEST_MISMATCH,
            f"source {source.name} at {root}: expected digest {source.digest}, found {digest}; these are other files",
        )
    return Fetched(
        name=source.name,
        role=role,
        path=root,
        digest=digest,
        facts=facts,
        hashes=hashes,
        weights_bytes=weights,
        model_type=model_type,
    )


def _needed(found: Sequence[Fetched], *, dtype: OutputDtype, quantization: Quantization) -> int:
    """Bytes of the result: its weights, and the files beside the base's."""
    bases = [item for item in found if item.role is Role.BASE]
    adapters = [item.path for item in found if item.role is Role.ADAPTER]
    weights = sum(output_bytes(item.path, adapters, dtype=dtype, quantization=quantization) for item in bases)
    return weights + sum(item.bytes - item.weights_bytes for item in bases) + SIDECARS


def _figures(found: Sequence[Fetched], *, free: int, needed: int) -> dict[str, Any]:
    bases = [item for item in found if item.role is Role.BASE]
    base = sum(item.weights_bytes for item in bases)
    adapters = sum(item.bytes for item in found if item.role is Role.ADAPTER)
    return {
        "mergeMemoryBytes": MERGE_MEMORY + 3 * adapters,
        # Base and merged model side by side, each perhaps in float32 where it is stored in 16 bits.
        "validateMemoryBytes": VALIDATE_MEMORY + 4 * base + 2 * adapters,
        "neededBytes": needed,
        "freeBytes": free,
        "weightsBytes": base,
        "modelType": bases[0].model_type if bases else "",
    }


def _prepared(output: Path) -> Path:
    cache = output / ".sources" / "digests"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        writable = os.access(cache, os.W_OK)
    except OSError as error:
        raise Infrastructure(Reason.NOT_WRITABLE, f"{cache}: cannot be created: {error.strerror}") from None
    if not writable:
        raise Infrastructure(
            Reason.NOT_WRITABLE, f"{cache}: not writable by user {os.geteuid()}; give the store's volume to that user"
        )
    return cache


def fetch(
    sources: Sequence[Source],
    *,
    claims: Path,
    output: Path,
    report: Path | None,
    dtype: OutputDtype = OutputDtype.AUTO,
    quantization: Quantization = Quantization.NONE,
) -> Done:
    """All sources, in order; refuses at the first that is not usable."""
    cache = _prepared(output)
    found = [_looked_at(source, claims=claims, cache=cache) for source in sources]
    status = os.statvfs(output)
    needed = _needed(found, dtype=dtype, quantization=quantization)
    figures = _figures(found, free=status.f_bavail * status.f_frsize, needed=needed)
    if figures["freeBytes"] < figures["neededBytes"]:
        raise Infrastructure(
            Reason.NO_SPACE,
            f"{output}: the result needs {figures['neededBytes']} bytes, {figures['freeBytes']} are free; "
            "enlarge the volume or remove what is not used",
            figures=figures,
        )
    if report is not None:
        content = {"schemaVersion": 1, "sources": [item.report() for item in found], "figures": figures}
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(content, indent=1), encoding="utf-8")
    names = ", ".join(f"{item.name} {item.digest}" for item in found)
    return Done(message=f"found {names}", figures=figures, extra={"sources": [item.summary() for item in found]})

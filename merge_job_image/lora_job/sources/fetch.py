"""`lora-job fetch`: where the sources lie, what they are (digest), whether the build fits on the disk and in memory.

Claims are used in place; only their digest is taken, from a cache in the store when nothing changed.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_job.digest import DigestCache, FileFacts, list_files
from lora_job.outcome import Infrastructure, Refused
from lora_job.progress import Progress
from lora_job.tensors import read_checkpoint, read_header

__all__ = ["fetch_sources"]

SCHEMES = ("pvc", "s3", "huggingFace", "oci")
GIB = 1 << 30
MERGE_FLOOR = 2 * GIB
VALIDATE_FLOOR = 3 * GIB
SLACK = 64 << 20


@dataclass(frozen=True)
class _Source:
    name: str
    role: str
    path: Path
    expected: str
    files: Mapping[str, FileFacts]

    @property
    def bytes(self) -> int:
        return sum(facts.size for facts in self.files.values())


def fetch_sources(
    sources: Sequence[str], *, digest: str, claims: Path, store: Path, report: Path | None
) -> dict[str, object]:
    """Resolves every source; the result is the termination message.

    Raises:
        Refused: SourceNotFound, NotSupportedYet, DigestMismatch, OnlyPickles …
        Infrastructure: NoSpace with the numbers, SourceChanged.
    """
    if digest and len(sources) != 1:
        raise Refused(
            "BadArgument", "--digest goes with a single --source; put `digest` into each source's JSON instead"
        )
    resolved = [_resolve(text, digest=digest, claims=claims) for text in sources]
    _make_store(store)
    entries = _digests(resolved, cache=DigestCache(store / ".sources" / "digests"))
    figures = _figures(resolved, store=store)
    result = {
        "reason": "SourcesResolved",
        "message": ", ".join(f"{entry['name']} {str(entry['digest'])[:19]}" for entry in entries),
        "sources": entries,
        "figures": figures,
    }
    if report is not None:
        report.write_text(json.dumps({"schemaVersion": 1, **result}, indent=1))
    if figures["freeBytes"] < figures["neededBytes"]:
        message = f"{store}: {figures['neededBytes']} bytes are needed, {figures['freeBytes']} are free; free or enlarge the volume"
        raise Infrastructure("NoSpace", message)
    return result


def _resolve(text: str, *, digest: str, claims: Path) -> _Source:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise Refused("BadArgument", f"--source: expected JSON, found {text[:80]!r}: {error}") from error
    if not isinstance(raw, dict):
        raise Refused("BadArgument", f"--source: expected a JSON object, found {text[:80]!r}")
    present = [scheme for scheme in SCHEMES if scheme in raw]
    if len(present) != 1:
        raise Refused(
            "BadArgument", f"--source: expected exactly one of {', '.join(SCHEMES)}, found {present or 'none'}"
        )
    if present[0] != "pvc":
        raise Refused(
            "NotSupportedYet",
            f"sources of scheme {present[0]} are not supported in this version; copy it to a claim and use pvc",
        )
    claim = raw["pvc"]
    path = claims / str(claim.get("claimName", "")) / str(claim.get("path", ""))
    if ".." in Path(str(claim.get("path", ""))).parts:
        raise Refused("BadArgument", f"--source: path {claim.get('path')!r} must not climb with '..'")
    if not path.exists():
        raise Refused(
            "SourceNotFound",
            f"claim {claim.get('claimName')}: there is no {claim.get('path')!r}; correct the path or copy the files",
        )
    role = str(raw.get("role") or ("adapter" if (path / "adapter_config.json").exists() else "base"))
    files = list_files(path)
    if not files:
        raise Refused("SourceNotFound", f"claim {claim.get('claimName')}: {claim.get('path')!r} is empty")
    return _Source(
        name=str(raw.get("name") or path.name),
        role=role,
        path=path,
        expected=str(raw.get("digest") or digest),
        files=files,
    )


def _make_store(store: Path) -> None:
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Infrastructure(
            "StoreNotWritable", f"{store}: {error.strerror}; is the claim writable for group 65532?"
        ) from error


def _digests(resolved: Sequence[_Source], *, cache: DigestCache) -> list[dict[str, Any]]:
    entries = []
    with Progress("fetch", total=sum(source.bytes for source in resolved), unit="B") as progress:
        for source in resolved:
            found = cache.digest(source.path, advance=progress.advance)
            if source.expected and found != source.expected:
                raise Refused(
                    "DigestMismatch",
                    f"{source.name}: expected {source.expected}, found {found}; the files are not what was meant",
                )
            entries.append(
                {
                    "name": source.name,
                    "role": source.role,
                    "path": str(source.path),
                    "digest": found,
                    "bytes": source.bytes,
                    "files": len(source.files),
                }
            )
    return entries


def _figures(resolved: Sequence[_Source], *, store: Path) -> dict[str, Any]:
    bases = [source for source in resolved if source.role == "base"]
    adapters = [source for source in resolved if source.role != "base"]
    weights = sum(_weights_bytes(source) for source in bases)
    for source in adapters:
        if (source.path / "adapter_model.safetensors").exists():
            read_header(source.path / "adapter_model.safetensors")
    adapter_bytes = sum(source.bytes for source in adapters)
    usage = shutil.disk_usage(store)
    return {
        "weightsBytes": weights,
        "neededBytes": sum(source.bytes for source in bases) + SLACK,
        "freeBytes": usage.free,
        # float64 verification of one tensor and the adapter in float32 beside the interpreter with torch
        "mergeMemoryBytes": max(MERGE_FLOOR, GIB + 4 * adapter_bytes),
        # base and candidate loaded one beside the other, activations and evaluation on top
        "validateMemoryBytes": max(VALIDATE_FLOOR, 2 * GIB + 5 * weights),
        "modelType": _model_type(bases),
        "cpus": os.cpu_count() or 1,
    }


def _weights_bytes(source: _Source) -> int:
    checkpoint = read_checkpoint(source.path)
    return sum(info.nbytes for info in checkpoint.tensors().values())


def _model_type(bases: Sequence[_Source]) -> str:
    for source in bases:
        try:
            return str(json.loads((source.path / "config.json").read_text()).get("model_type", ""))
        except (OSError, ValueError):
            raise Refused("BadConfig", f"{source.path}: config.json is missing or not JSON") from None
    return ""

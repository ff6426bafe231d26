"""From base and adapters to a published model: inspect → plan → merge → verify → publish.

Nothing exists under the output's name before everything is proven; a killed run leaves a partial directory that the next one goes on with.
"""

import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from lora_job.digest import combine, directory_digest, file_sha256, hash_files
from lora_job.files import FileFact, list_files, unchanged
from lora_job.merge.adapter import Adapter, read_adapter
from lora_job.merge.base_name import check_base_name
from lora_job.merge.build_plan import build_plan
from lora_job.merge.encode import quantized_plan
from lora_job.merge.engine import StepFigures, Writer
from lora_job.merge.factors import Deltas
from lora_job.merge.memory import PeakMemory
from lora_job.merge.plan import Operation, Plan, ShardPlan, Warned
from lora_job.merge.publish import Partial, check_separate, open_partial, write_file
from lora_job.merge.recipe import ENGINE_VERSION, Recipe, build_hash
from lora_job.merge.sidecars import Sidecars, gather_sidecars
from lora_job.merge.verify import ShardProof, Verifier, chosen_sample
from lora_job.model_config import ModelConfig, read_config, serving_figures
from lora_job.outcome import Refused, Terminated
from lora_job.progress import Progress
from lora_job.reasons import Reason
from lora_job.strict_json import read_object
from lora_job.tensors import Checkpoint, read_checkpoint

__all__ = ["Inspected", "MergeRequest", "inspect_sources", "merge_sources"]

MANIFEST = "merge.json"
INDEX = "model.safetensors.index.json"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class MergeRequest:
    """What is merged and where it goes: exactly one of `output` and `output_root`."""

    base: Path
    adapters: tuple[Path, ...]
    recipe: Recipe
    allow_unverified_base: bool = False
    output: Path | None = None
    output_root: Path | None = None
    workers: int = 2
    fetch_report: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """Everything that headers and configs tell."""

    base: Checkpoint
    config: ModelConfig
    adapters: tuple[Adapter, ...]
    plan: Plan
    sidecars: Sidecars
    warnings: tuple[Warned, ...]

    def with_digests(self, digests: Sequence[str]) -> "Inspected":
        """The same, once the adapters were read whole."""
        known = zip(self.adapters, digests, strict=True)
        return replace(self, adapters=tuple(replace(adapter, digest=digest) for adapter, digest in known))


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """Files and digests of base and adapters, in that order."""

    roots: tuple[Path, ...]
    facts: tuple[tuple[FileFact, ...], ...]
    digests: tuple[str, ...]


def inspect_sources(request: MergeRequest) -> Inspected:
    """Reads headers and configs, refuses what cannot be merged, and plans the rest."""
    config = read_config(request.base)
    base = read_checkpoint(request.base)
    adapters = tuple(read_adapter(path) for path in request.adapters)
    warnings = []
    for adapter in adapters:
        if not check_base_name(adapter, base=request.base, config=config, allowed=request.allow_unverified_base):
            message = f"{adapter.where} does not name this base; that was allowed"
            warnings.append(Warned(code="UnverifiedBase", message=message))
        warnings += [Warned(code="Adapter", message=text) for text in adapter.warnings]
    plan = build_plan(base=base, config=config, adapters=adapters, recipe=request.recipe)
    plan = quantized_plan(plan, config=config, recipe=request.recipe)
    sidecars = gather_sidecars(
        base=request.base,
        adapters=request.adapters,
        config=config,
        config_changes=plan.config_changes,
        rows=_embedding_rows(plan),
        allowed_template=request.recipe.allowed_chat_template,
    )
    every = (*warnings, *plan.warnings, *sidecars.warnings)
    return Inspected(base=base, config=config, adapters=adapters, plan=plan, sidecars=sidecars, warnings=every)


def merge_sources(request: MergeRequest) -> tuple[Path, dict[str, Any], bool]:
    """Merges and publishes; returns where, the manifest, and whether an identical build was there already."""
    started = time.monotonic()
    inspected = inspect_sources(request)
    sources = _read_sources(request)
    inspected = inspected.with_digests(sources.digests[1:])
    build = build_hash(request.recipe, base=sources.digests[0], adapters=sources.digests[1:])
    final = request.output if request.output is not None else _under(request.output_root, build)
    check_separate(final, sources=sources.roots)
    adopted = _adopt(final, build=build)
    if adopted is not None:
        return final, adopted, True
    with open_partial(final, build=build) as partial:
        try:
            manifest = _build(request, inspected, sources, partial=partial, build=build, started=started)
        except Refused:
            partial.abandon()
            raise
        if final.exists():
            final.rmdir()  # empty, or _adopt would have refused
        partial.publish()
    return final, manifest, False


def _under(root: Path | None, build: str) -> Path:
    if root is None:
        raise Refused(Reason.INVALID_OPTION, "give exactly one of --output and --output-root")
    root.mkdir(parents=True, exist_ok=True)
    return root / build


def _embedding_rows(plan: Plan) -> int:
    shapes = {step.name: step.shape for step in plan.steps}
    found = [
        shape[0]
        for name, shape in shapes.items()
        if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight"))
    ]
    return found[0] if found else 0


def _read_sources(request: MergeRequest) -> _Sources:
    roots = (request.base, *request.adapters)
    facts = tuple(list_files(root) for root in roots)
    known = _reported(request.fetch_report)
    digests = []
    for root, listed in zip(roots, facts, strict=True):
        hashes = _hashes_if_unchanged(known.get(str(root)), listed)
        if hashes is None:
            with Progress(f"read {root.name}", total=sum(fact.size for fact in listed), unit="B") as progress:
                hashes = hash_files(listed, tick=progress.advance)
        digests.append(combine(hashes))
    return _Sources(roots=roots, facts=facts, digests=tuple(digests))


def _reported(path: Path | None) -> dict[str, list[dict[str, Any]]]:
    """Files by source directory as `lora-job fetch` saw them."""
    if path is None:
        return {}
    report = read_object(path, reason=Reason.INVALID_OPTION)
    sources = report.get("sources")
    if not isinstance(sources, list):
        raise Refused(Reason.INVALID_OPTION, f"--fetch-report: {path}: field 'sources': expected a list")
    return {str(item.get("path")): item.get("files", []) for item in sources if isinstance(item, dict)}


def _hashes_if_unchanged(
    reported: Sequence[Mapping[str, Any]] | None, facts: Sequence[FileFact]
) -> dict[str, str] | None:
    """fetch's hashes, believed only while size, mtime and inode of every file are what fetch saw."""
    if not reported:
        return None
    seen = {(entry.get("path"), entry.get("size"), entry.get("mtime"), entry.get("inode")) for entry in reported}
    if seen != {(fact.path, fact.size, fact.mtime, fact.inode) for fact in facts}:
        return None
    return {str(entry["path"]): str(entry["sha256"]) for entry in reported}


def _adopt(final: Path, *, build: str) -> dict[str, Any] | None:
    """The manifest of this very build when it is there and verifies; None when the place is free."""
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return None
    try:
        manifest = json.loads((final / MANIFEST).read_text(encoding="utf-8"))
        same = bool(manifest.get("buildHash") == build)
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        raise Refused(
            Reason.OUTPUT_NOT_EMPTY, f"{final}: exists and is not this build; choose another output or remove it"
        )
    if directory_digest(final) != manifest["output"]["digest"]:
        raise Refused(
            Reason.OUTPUT_NOT_EMPTY, f"{final}: is this build but was changed since; remove it and merge again"
        )
    return dict(manifest)


def _build(
    request: MergeRequest, inspected: Inspected, sources: _Sources, *, partial: Partial, build: str, started: float
) -> dict[str, Any]:
    torch.set_num_threads(1)
    plan, stop = inspected.plan, threading.Event()
    deltas = Deltas(inspected.adapters, check=lambda: _check(stop))
    with PeakMemory() as memory:
        figures = _write(request, inspected, deltas, partial=partial, stop=stop)
        proofs = _verify(request, inspected, deltas, partial=partial, build=build, figures=figures, stop=stop)
    for root, facts in zip(sources.roots, sources.facts, strict=True):
        unchanged(facts, root=root)
    hashes = {file: proof.sha256 for file, proof in proofs.items()}
    for name, data in inspected.sidecars.files.items():
        write_file(partial.path / name, data)
        hashes[name] = file_sha256(partial.path / name)
    if inspected.base.index is not None:
        write_file(partial.path / INDEX, _index(inspected))
        hashes[INDEX] = file_sha256(partial.path / INDEX)
    size = sum((partial.path / name).stat().st_size for name in hashes)
    retention = {
        name: kept for file in figures.values() for name, one in file.items() if (kept := one.retention) is not None
    }
    for proof in proofs.values():
        retention |= proof.retention
    lost = sorted(name for file in figures.values() for name, one in file.items() if one.delta > 0 and one.moved == 0)
    if retention and len(lost) == len(retention) and not _counts(plan)["replaced"]:
        message = f"the output's dtype keeps nothing of the adapter in any of {len(lost)} tensors; use --dtype float32"
        raise Refused(Reason.DELTA_LOST, message)
    shares = sorted(retention.values()) or [1.0]
    manifest = {
        "schemaVersion": 1,
        "engineVersion": ENGINE_VERSION,
        "buildHash": build,
        "recipe": request.recipe.as_json(),
        "base": {"path": str(request.base), "digest": sources.digests[0]},
        "adapters": [
            {"name": one.name, "path": str(one.root), "digest": digest, "weight": weight, "rank": one.config.rank}
            for one, digest, weight in zip(inspected.adapters, sources.digests[1:], request.recipe.weights, strict=True)
        ],
        "planHash": plan.digest,
        "output": {"digest": combine(hashes), "bytes": size, "dtype": _dtype(plan)},
        "serving": serving_figures(inspected.config, weights_bytes=plan.data_bytes).as_json(),
        "tensors": _counts(plan),
        "tensorDigests": {name: digest for proof in proofs.values() for name, digest in proof.tensors.items()},
        "deltaRetention": {"min": round(shares[0], 6), "median": round(shares[len(shares) // 2], 6)},
        "verification": {
            "sampled": sum(proof.sampled for proof in proofs.values()),
            "mismatchedElements": sum(proof.mismatched for proof in proofs.values()),
            "maxUlp": max((proof.max_ulp for proof in proofs.values()), default=0),
            **_quantized(proofs.values()),
        },
        "warnings": [warned.as_json() for warned in inspected.warnings]
        + [{"code": "DeltaLost", "message": name} for name in lost],
        "figures": {"seconds": round(time.monotonic() - started, 3), "peakAnonymousBytes": memory.peak},
    }
    write_file(partial.path / MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    return manifest


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Terminated(Reason.TERMINATED, "stopped before it was finished; nothing was published")


def _write(
    request: MergeRequest, inspected: Inspected, deltas: Deltas, *, partial: Partial, stop: threading.Event
) -> dict[str, Mapping[str, StepFigures]]:
    done = dict(partial.resume())
    todo = [shard for shard in inspected.plan.shards if shard.file not in done]
    lock = threading.Lock()
    with Progress("merge", total=inspected.plan.data_bytes, unit="B") as progress:
        progress.advance(sum(shard.data_bytes for shard in inspected.plan.shards if shard.file in done))
        writer = Writer(base=inspected.base, deltas=deltas, tick=progress.advance, stop=stop)

        def work(shard: ShardPlan) -> None:
            figures = writer.write(shard, target=partial.path / shard.file)
            with lock:
                partial.finished(shard.file, figures)
                done[shard.file] = figures

        _in_threads(work, todo, workers=request.workers, stop=stop)
    return done


def _verify(
    request: MergeRequest,
    inspected: Inspected,
    deltas: Deltas,
    *,
    partial: Partial,
    build: str,
    figures: Mapping[str, Mapping[str, StepFigures]],
    stop: threading.Event,
) -> dict[str, ShardProof]:
    proofs: dict[str, ShardProof] = {}
    with Progress("verify", total=inspected.plan.data_bytes, unit="B") as progress:
        verifier = Verifier(
            base=inspected.base,
            deltas=deltas,
            sample=chosen_sample(inspected.plan),
            seed=int(build, 16) % 2**31,
            tick=progress.advance,
            stop=stop,
        )

        def work(shard: ShardPlan) -> None:
            proofs[shard.file] = verifier.verify(shard, target=partial.path / shard.file, figures=figures[shard.file])

        _in_threads(work, inspected.plan.shards, workers=request.workers, stop=stop)
    return {shard.file: proofs[shard.file] for shard in inspected.plan.shards}


def _in_threads(work: Any, items: Iterable[T], *, workers: int, stop: threading.Event) -> None:
    """One item per thread; the first failure, or SIGTERM, stops the others at their next chunk."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        jobs = [pool.submit(work, item) for item in items]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            stop.set()
            for job in jobs:
                job.cancel()
            raise


def _index(inspected: Inspected) -> bytes:
    """The base's index with the sizes and names of the result; total_size is bytes."""
    raw = dict(inspected.base.index or {})
    raw["metadata"] = {**dict(raw.get("metadata") or {}), "total_size": inspected.plan.data_bytes}
    raw["weight_map"] = {
        one.name: shard.file for shard in inspected.plan.shards for step in shard.steps for one in step.stored
    }
    return (json.dumps(raw, indent=2) + "\n").encode()


def _dtype(plan: Plan) -> str:
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
    found = {step.dtype for step in plan.steps if step.terms} or {step.dtype for step in plan.steps}
    return names.get(found.pop(), "mixed") if len(found) == 1 else "mixed"


def _quantized(proofs: Iterable[ShardProof]) -> dict[str, Any]:
    """What reading quantized layers back has shown; nothing where there are none."""
    found = [proof for proof in proofs if proof.quantized]
    if not found:
        return {}
    return {
        "quantizedTensors": sum(proof.quantized for proof in found),
        "worstOfBound": round(max(proof.worst_of_bound for proof in found), 4),
    }


def _counts(plan: Plan) -> dict[str, int]:
    merged = sum(bool(step.terms) for step in plan.steps)
    replaced = sum(step.operation in {Operation.REPLACE, Operation.ROWS, Operation.ADD} for step in plan.steps)
    quantized = sum(bool(step.encoding) for step in plan.steps)
    return {
        "merged": merged,
        "copied": len(plan.steps) - merged - replaced,
        "replaced": replaced,
        **({"quantized": quantized} if quantized else {}),
    }

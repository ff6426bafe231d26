"""From base and adapters to a published model: inspect → plan → merge and verify, tensor by tensor → publish.

Nothing exists under the output's name before everything is proven; a killed run leaves a partial directory that the next one goes on with.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lora_job.digest import combine, directory_digest, file_sha256
from lora_job.files import list_files, unchanged
from lora_job.merge.adapter import Adapter, read_adapter
from lora_job.merge.base_name import check_base_name
from lora_job.merge.build_context import BuildContext
from lora_job.merge.build_plan import build_plan
from lora_job.merge.device import choose_device, find_gpu, released
from lora_job.merge.engine import Writer, reserve
from lora_job.merge.factors import Deltas, check_factors
from lora_job.merge.figures import StepFigures
from lora_job.merge.heap import keep_pages, uncollected
from lora_job.merge.lanes import check_running, in_lanes
from lora_job.merge.memory import PeakMemory
from lora_job.merge.plan import Operation, Plan, ShardPlan, Step, Warned
from lora_job.merge.publish import Partial, check_separate, is_begun, open_partial, sync, write_file
from lora_job.merge.recipe import ENGINE_VERSION, Quantization
from lora_job.merge.request import MergeRequest
from lora_job.merge.rounded_sum import is_rounded_sum
from lora_job.merge.sidecars import Sidecars, gather_sidecars
from lora_job.merge.source_digests import SourceDigests
from lora_job.merge.stored_copies import check_stored_copies
from lora_job.merge.stream import OpenFiles
from lora_job.merge.targets import Targets
from lora_job.merge.verify import ShardProof, Verifier, chosen_sample
from lora_job.merge.writeback import Writeback
from lora_job.model_config import ModelConfig, read_config, serving_figures
from lora_job.outcome import Infrastructure, Refused
from lora_job.progress import Progress
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_NAMES, FLOATS, Checkpoint, read_checkpoint

__all__ = ["Inspected", "MergeRequest", "inspect_sources", "merge_digested", "merge_sources"]

MANIFEST = "merge.json"
INDEX = "model.safetensors.index.json"


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


def inspect_sources(request: MergeRequest) -> Inspected:
    """Reads headers, configs and factors, refuses what cannot be merged, and plans the rest."""
    for root in request.roots:
        list_files(root)  # refuses links and files that no model has
    config = read_config(request.base)
    base = read_checkpoint(request.base)
    _check_not_quantized(base, config)
    adapters = tuple(read_adapter(path) for path in request.adapters)
    warnings = []
    for adapter in adapters:
        if not check_base_name(adapter, base=request.base, config=config, allowed=request.allow_unverified_base):
            message = f"{adapter.where} does not name this base; that was allowed"
            warnings.append(Warned(code="UnverifiedBase", message=message))
        warnings += [Warned(code="Adapter", message=text) for text in adapter.warnings]
        warnings += _idle(adapter)
    plan = build_plan(base=base, config=config, adapters=adapters, recipe=request.recipe)
    for adapter in adapters:
        check_stored_copies(adapter, targets=Targets(base=base, config=config))
    if request.recipe.quantization is not Quantization.NONE:
        with uncollected():
            from lora_job.merge.encode import quantized_plan  # noqa: PLC0415 (torch, which other merges can do without)
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


def _check_not_quantized(base: Checkpoint, config: ModelConfig) -> None:
    """A quantized base would come out half quantized and without the config that says so."""
    packed = next((one for one in base.entries.values() if one.dtype not in FLOATS | {"BOOL", "I64"}), None)
    if "quantization_config" in config.raw and packed is not None:
        raise Refused(
            Reason.QUANTIZED_BASE,
            f"{base.root / 'config.json'}: field 'quantization_config': the base is quantized (tensor {packed.name} is "
            f"{packed.dtype}); merge into the base it was made from and quantize the result",
        )


def _idle(adapter: Adapter) -> list[Warned]:
    """Modules whose B is zero throughout: allowed, it is how every training starts, but seldom what was meant."""
    idle = check_factors(adapter)
    if not idle:
        return []
    message = (
        f"{adapter.where}: B is zero in {len(idle)} of {len(adapter.modules)} modules ({idle[0]}): it changes nothing"
    )
    return [Warned(code="ZeroDelta", message=message)]


def merge_sources(request: MergeRequest) -> tuple[Path, dict[str, Any], bool]:
    """Merges and publishes; returns where, the manifest, and whether an identical build was there already."""
    with SourceDigests(request) as digests:
        return merge_digested(request, digests)


def merge_digested(request: MergeRequest, digests: SourceDigests) -> tuple[Path, dict[str, Any], bool]:
    """The same with digests that are being made."""
    started = time.monotonic()
    inspected = inspect_sources(request).with_digests(digests.adapters)
    if request.output is None or is_begun(request.output):
        digests.show_base()
    final = request.output if request.output is not None else _under(request.output_root, digests.build())
    check_separate(final, sources=request.roots)
    adopted = _adopt(final, build=digests.build)
    if adopted is not None:
        return final, adopted, True
    return final, *_merge(request, inspected, digests, final=final, started=started)


def _merge(
    request: MergeRequest, inspected: Inspected, digests: SourceDigests, *, final: Path, started: float
) -> tuple[dict[str, Any], bool]:
    """The manifest, and whether another writer had published this build by the time the lock was ours."""
    with open_partial(final, build=digests.build) as partial:
        try:
            adopted = _adopt(final, build=digests.build)
            if adopted is not None:
                partial.abandon()
                return adopted, True
            manifest = _build(request, inspected, digests, partial=partial, started=started)
            partial.publish()
        except BaseException as error:
            if not (_worth_resuming(error) and partial.holds_finished):
                partial.abandon()
            raise
    return manifest, False


def _under(root: Path | None, build: str) -> Path:
    if root is None:
        raise Refused(Reason.INVALID_OPTION, "give exactly one of --output and --output-root")
    return root / build


def _worth_resuming(error: BaseException) -> bool:
    """Only a disk that was full or failed leaves files that the next attempt can trust."""
    return isinstance(error, OSError) or (isinstance(error, Infrastructure) and error.reason == Reason.NO_SPACE)


def _embedding_rows(plan: Plan) -> int:
    shapes = {step.name: step.shape for step in plan.steps}
    found = [
        shape[0]
        for name, shape in shapes.items()
        if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight"))
    ]
    return found[0] if found else 0


def _adopt(final: Path, *, build: Callable[[], str]) -> dict[str, Any] | None:
    """The manifest of this very build when it is there and verifies; None when the place is free."""
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return None
    try:
        manifest = json.loads((final / MANIFEST).read_text(encoding="utf-8"))
        same, digest = bool(manifest["buildHash"] == build()), manifest["output"]["digest"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        same, digest = False, ""
    if not same:
        raise Refused(
            Reason.OUTPUT_NOT_EMPTY, f"{final}: exists and is not this build; choose another output or remove it"
        )
    if directory_digest(final) != digest:
        raise Refused(
            Reason.OUTPUT_NOT_EMPTY, f"{final}: is this build but was changed since; remove it and merge again"
        )
    return dict(manifest)


def _build(
    request: MergeRequest, inspected: Inspected, digests: SourceDigests, *, partial: Partial, started: float
) -> dict[str, Any]:
    plan = inspected.plan
    if request.device == "cuda" or any(_needs_torch(step) for step in plan.steps):
        _load_torch()
    keep_pages()
    chosen = choose_device(request.device, gpu=find_gpu() if request.device == "cuda" else None)
    stop = threading.Event()
    with (
        PeakMemory() as memory,
        _Disk() as disk,
        released(chosen.device),
        OpenFiles() as files,
        Writeback() as writeback,
    ):
        context = BuildContext(
            base=inspected.base,
            deltas=Deltas(inspected.adapters, files=files, check=lambda: check_running(stop)),
            workers=request.workers,
            hasher=digests.hasher,
            writeback=writeback,
            stop=stop,
        )
        figures, proofs = _write(inspected, context, partial=partial, disk=disk, device=chosen.device)
        disk.wait()
    build = digests.build()
    for root, facts in zip(request.roots, digests.facts, strict=True):
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
    lost = sorted(name for file in figures.values() for name, one in file.items() if one.delta > 0 and not one.moved)
    if retention and len(lost) == len(retention) and not _counts(plan)["replaced"]:
        message = f"the output's dtype keeps nothing of the adapter in any of {len(lost)} tensors; use --dtype float32"
        raise Refused(Reason.DELTA_LOST, message)
    retention = {name: round(kept, 6) for name, kept in sorted(retention.items())}
    shares = sorted(retention.values()) or [1.0]
    manifest = {
        "schemaVersion": 1,
        "engineVersion": ENGINE_VERSION,
        "buildHash": build,
        "recipe": request.recipe.as_json(),
        "base": {"path": str(request.base), "digest": digests.base},
        "adapters": [
            {"name": one.name, "path": str(one.root), "digest": digest, "weight": weight, "rank": one.config.rank}
            for one, digest, weight in zip(inspected.adapters, digests.adapters, request.recipe.weights, strict=True)
        ],
        "planHash": plan.digest,
        "output": {"digest": combine(hashes), "bytes": size, "dtype": _dtype(plan)},
        "serving": serving_figures(inspected.config, weights_bytes=plan.data_bytes).as_json(),
        "tensors": _counts(plan),
        "tensorDigests": {name: digest for proof in proofs.values() for name, digest in proof.tensors.items()},
        "deltaRetention": {"min": shares[0], "median": shares[len(shares) // 2], "tensors": retention},
        "verification": {
            "sampled": sum(proof.sampled for proof in proofs.values()),
            "mismatchedElements": sum(proof.mismatched for proof in proofs.values()),
            "maxUlp": max((proof.max_ulp for proof in proofs.values()), default=0),
            **_quantized(proofs.values()),
        },
        "warnings": [warned.as_json() for warned in (*inspected.warnings, *chosen.told)]
        + [{"code": "DeltaLost", "message": name} for name in lost],
        "figures": {"seconds": round(time.monotonic() - started, 3), "peakAnonymousBytes": memory.peak},
    }
    write_file(partial.path / MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    return manifest


def _needs_torch(step: Step) -> bool:
    """To be written, or to be verified: what slerp's sample is compared with is calculated densely."""
    return not step.is_plain_copy and (not is_rounded_sum(step) or step.combination is not None)


def _load_torch() -> None:
    """In one piece before the work: workers would wait for each other, and what loading leaves free settle among their chunks."""
    with uncollected():
        import torch  # noqa: PLC0415

        from lora_job.merge import calculated, recalculated  # noqa: F401, PLC0415
    # Files and workers are what runs in parallel; to share out a tensor of some kilobytes takes longer than to look at it.
    torch.set_num_threads(1)


def _write(
    inspected: Inspected, context: BuildContext, *, partial: Partial, disk: "_Disk", device: str
) -> tuple[dict[str, Mapping[str, StepFigures]], dict[str, ShardProof]]:
    """Figures and proofs by file: each tensor is written and verified, those of finished files only verified."""
    plan, proofs = inspected.plan, dict[str, ShardProof]()
    done = dict(partial.resume())
    for file in done:
        disk.flush(partial.path / file)
    todo = [shard for shard in plan.shards if shard.file not in done]
    reserve(todo, base=inspected.base, directory=partial.path)
    with Progress("merge", total=plan.data_bytes, unit="B") as progress:
        writer, sample = Writer(context, device=device), chosen_sample(plan)
        verifier = Verifier(context, sample=sample, seed=_seed(inspected), tick=progress.advance)

        def work(shard: ShardPlan) -> None:
            target = partial.path / shard.file
            if shard.file in done:
                proofs[shard.file] = verifier.verify(shard, target=target, figures=done[shard.file])
                return
            with verifier.begin(shard, target=target) as check:
                figures = writer.write(shard, target=target, watched=check.watched)
                done[shard.file] = figures
                # What the state names must be on the disk: after a power cut nothing else tells that a file is whole.
                disk.flush(target, then=lambda: partial.finished(shard.file, figures))
                proofs[shard.file] = check.proof()

        in_lanes(work, plan.shards, lanes=context.workers, stop=context.stop)
    return done, {shard.file: proofs[shard.file] for shard in plan.shards}


def _seed(inspected: Inspected) -> int:
    """Of the verification's choices: known before the base was read whole, and another for every adapter."""
    named = hashlib.sha256("".join((inspected.plan.digest, *(one.digest for one in inspected.adapters))).encode())
    return int(named.hexdigest(), 16) % 2**31


class _Disk:
    """Brings finished files to the disk while others are written and verified; nothing is published before `wait` returned."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk")
        self._files: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # Files that the next attempt can go on with are still brought to the disk and recorded.
        self._thread.shutdown(cancel_futures=error is not None and not _worth_resuming(error))

    def flush(self, path: Path, *, then: Callable[[], None] = lambda: None) -> None:
        """Starts it, and calls `then` once the file is there; safe from any thread."""

        def work() -> None:
            sync(path)
            then()

        self._files.append(self._thread.submit(work))

    def wait(self) -> None:
        """Until all are there, or the first error."""
        for file in self._files:
            file.result()


def _index(inspected: Inspected) -> bytes:
    """The base's index with the sizes and names of the result; total_size is bytes."""
    raw = dict(inspected.base.index or {})
    raw["metadata"] = {**dict(raw.get("metadata") or {}), "total_size": inspected.plan.data_bytes}
    raw["weight_map"] = {
        one.name: shard.file for shard in inspected.plan.shards for step in shard.steps for one in step.stored
    }
    return (json.dumps(raw, indent=2) + "\n").encode()


def _dtype(plan: Plan) -> str:
    found = {step.dtype for step in plan.steps if step.terms} or {step.dtype for step in plan.steps}
    return DTYPE_NAMES.get(found.pop(), "mixed") if len(found) == 1 else "mixed"


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

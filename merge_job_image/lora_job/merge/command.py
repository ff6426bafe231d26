"""`lora-job merge` and `lora-job inspect`: inspect → plan → merge → verify → publish."""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lora_job.digest import DigestCache, digest_directory, digest_of
from lora_job.merge.adapter import Adapter, read_adapter
from lora_job.merge.engine import write_shards
from lora_job.merge.plan import DTYPES, Plan, make_plan
from lora_job.merge.publish import (
    adopt,
    locked,
    partial_directory,
    publish,
    refuse_bad_target,
    write_index,
    write_sidecars,
)
from lora_job.merge.sidecars import check_base_name, plan_sidecars, read_config
from lora_job.merge.verify import Verification, verify_output
from lora_job.outcome import Refused
from lora_job.progress import Progress
from lora_job.tensors import Checkpoint, read_checkpoint

__all__ = ["ENGINE_VERSION", "Request", "merge_model", "show_plan"]

ENGINE_VERSION = "1"
NOT_YET: Mapping[str, tuple[str, ...]] = {"strategy": ("linear",), "quantization": ("none",), "device": ("auto", "cpu")}
DTYPE_NAMES = {code: name for name, code in DTYPES.items()}


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    base: Path
    adapters: tuple[Path, ...]
    weights: tuple[float, ...]
    output: Path | None
    output_root: Path | None
    strategy: str
    scale: float
    t: float
    density: float
    seed: int
    dtype: str
    device: str
    quantization: str
    allow_unverified_base: bool
    allow_chat_template: str
    workers: int
    fetch_report: Path | None

    @classmethod
    def of(
        cls,
        *,
        base: Path,
        adapters: Sequence[str],
        output: Path | None = None,
        output_root: Path | None = None,
        strategy: str = "linear",
        scale: float = 1.0,
        t: float = 0.5,
        density: float = 0.5,
        seed: int = 0,
        dtype: str = "auto",
        device: str = "auto",
        quantization: str = "none",
        allow_unverified_base: bool = False,
        allow_chat_template: str = "",
        workers: int = 2,
        fetch_report: Path | None = None,
    ) -> Self:
        """Parses DIR[=WEIGHT] and refuses options that this version does not have."""
        given = {"strategy": strategy, "quantization": quantization, "device": device}
        for option, known in NOT_YET.items():
            if given[option] not in known:
                raise Refused(
                    "NotSupportedYet",
                    f"--{option} {given[option]} is not supported in this version; use {' or '.join(known)}",
                )
        if dtype not in {"auto", *DTYPES}:
            raise Refused("BadArgument", f"--dtype {dtype}: expected auto, {', '.join(DTYPES)}")
        if len(adapters) != 1:
            raise Refused("NotSupportedYet", f"{len(adapters)} adapters: this version merges exactly one")
        pairs = [_weighted(text) for text in adapters]
        return cls(
            base=base,
            adapters=tuple(path for path, _ in pairs),
            weights=tuple(weight for _, weight in pairs),
            output=output,
            output_root=output_root,
            strategy=strategy,
            scale=scale,
            t=t,
            density=density,
            seed=seed,
            dtype=dtype,
            device=device,
            quantization=quantization,
            allow_unverified_base=allow_unverified_base,
            allow_chat_template=allow_chat_template.removeprefix("sha256:"),
            workers=workers,
            fetch_report=fetch_report,
        )

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides the result beside the sources; part of the build's hash and of merge.json."""
        return {
            "strategy": self.strategy,
            "weights": list(self.weights),
            "scale": self.scale,
            "t": self.t,
            "density": self.density,
            "seed": self.seed,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "allowedChatTemplate": self.allow_chat_template,
        }


@dataclass(frozen=True)
class _Inspected:
    base: Checkpoint
    adapters: tuple[Adapter, ...]
    config: Mapping[str, Any]
    plan: Plan
    sidecars: Mapping[str, bytes | Path]


def merge_model(request: Request, *, report: Path | None) -> dict[str, object]:
    """The whole pipeline; returns the termination message."""
    started = time.monotonic()
    if (request.output is None) == (request.output_root is None):
        raise Refused("BadArgument", "give exactly one of --output and --output-root")
    inspected = _inspect(request)
    digests = _source_digests(request)
    build_hash = _build_hash(request, digests)
    target = request.output if request.output is not None else _under(request.output_root, build_hash)
    refuse_bad_target(target, sources=[request.base, *request.adapters])
    with locked(target):
        manifest = adopt(target, build_hash=build_hash)
        adopted = manifest is not None
        if manifest is None:
            manifest = _build(request, inspected, digests, target=target, build_hash=build_hash, started=started)
    result = _termination(request, manifest, target=target, adopted=adopted)
    if report is not None:
        report.write_text(json.dumps(_report(manifest, target=target), indent=1, ensure_ascii=False))
    if sys.stderr.isatty():
        _show_summary(manifest, target=target, adopted=adopted)
    return result


def show_plan(request: Request, *, as_json: bool) -> dict[str, object]:
    """The plan as JSON or as a table; writes nothing."""
    plan = _inspect(request).plan
    if as_json:
        sys.stdout.write(json.dumps(plan.to_json(), indent=1) + "\n")
    else:
        _show_table(plan)
    return {"reason": "Inspected", "message": f"{plan.count('LORA')} tensors merged, {plan.count('COPY')} copied"}


def _under(root: Path | None, build_hash: str) -> Path:
    if root is None:
        raise Refused("BadArgument", "give --output-root")
    return root / build_hash


def _inspect(request: Request) -> _Inspected:
    if not request.base.is_dir():
        raise Refused("SourceNotFound", f"--base {request.base}: expected a directory; correct the path")
    config = read_config(request.base)
    base = read_checkpoint(request.base)
    adapters = tuple(read_adapter(path) for path in request.adapters)
    for adapter in adapters:
        check_base_name(
            adapter.base_name, base=request.base, config=config, allow_unverified=request.allow_unverified_base
        )
    plan = make_plan(base, adapters, config=config, weights=request.weights, scale=request.scale, dtype=request.dtype)
    sidecars = plan_sidecars(
        request.base,
        request.adapters[-1],
        config=_with_dtype(config, request.dtype),
        allowed_template=request.allow_chat_template,
    )
    return _Inspected(base=base, adapters=adapters, config=config, plan=plan, sidecars=sidecars)


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    return dict(config) if dtype == "auto" else {**config, "dtype": dtype}


def _source_digests(request: Request) -> dict[str, str]:
    """By path; from fetch's report when it speaks of the same files, otherwise read now."""
    cache = DigestCache(None)
    if request.fetch_report is not None:
        # fetch has filled the store's cache a moment ago; it compares size, mtime and inode of every file again
        cache = DigestCache(_store_cache(request.fetch_report))
    paths = [request.base, *request.adapters]
    return {str(path): cache.digest(path) for path in paths}


def _store_cache(report: Path) -> Path | None:
    try:
        found = json.loads(report.read_text(encoding="utf-8")).get("digestCache")
    except (OSError, ValueError, AttributeError) as error:
        raise Refused("BadArgument", f"--fetch-report {report}: not a report of lora-job fetch: {error}") from None
    return Path(found) if found else None


def _build_hash(request: Request, digests: Mapping[str, str]) -> str:
    what = {
        "recipe": request.recipe,
        "sources": [digests[str(path)] for path in (request.base, *request.adapters)],
        "engine": ENGINE_VERSION,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _build(
    request: Request,
    inspected: _Inspected,
    digests: Mapping[str, str],
    *,
    target: Path,
    build_hash: str,
    started: float,
) -> dict[str, Any]:
    plan = inspected.plan
    partial = partial_directory(target, build_hash=build_hash)
    total = sum(operation.nbytes for operation in plan.operations)
    with Progress("merge", total=total, unit="B") as progress:
        write_shards(
            plan, inspected.base, inspected.adapters, target=partial, workers=request.workers, advance=progress.advance
        )
    with Progress("verify", total=total, unit="B") as progress:
        verification = verify_output(plan, inspected.base, inspected.adapters, target=partial, advance=progress.advance)
    write_sidecars(partial, inspected.sidecars)
    write_index(partial, plan, inspected.base)
    digest = digest_directory(partial)
    size = sum(path.stat().st_size for path in partial.iterdir())
    manifest = _manifest(
        request,
        inspected,
        digests,
        verification=verification,
        build_hash=build_hash,
        digest=digest,
        size=size,
        started=started,
    )
    publish(partial, target, manifest=manifest)
    return manifest


def _manifest(
    request: Request,
    inspected: _Inspected,
    digests: Mapping[str, str],
    *,
    verification: Verification,
    build_hash: str,
    digest: str,
    size: int,
    started: float,
) -> dict[str, Any]:
    plan = inspected.plan
    retention = verification.retention
    return {
        "schemaVersion": 1,
        "engineVersion": ENGINE_VERSION,
        "buildHash": build_hash,
        "recipe": request.recipe,
        "base": {"path": str(request.base), "digest": digests[str(request.base)]},
        "adapters": [
            {"name": path.name, "path": str(path), "digest": digests[str(path)], "weight": weight, "rank": adapter.rank}
            for path, weight, adapter in zip(request.adapters, request.weights, inspected.adapters, strict=True)
        ],
        "planHash": digest_of({name: str(operation) for name, operation in plan.to_json()["tensors"].items()}),
        "output": {"digest": digest, "bytes": size, "dtype": _dtype(plan)},
        "serving": _serving(plan, inspected.config),
        "tensors": {"merged": plan.count("LORA"), "copied": plan.count("COPY") + plan.count("CAST"), "replaced": 0},
        "tensorDigests": verification.digests,
        "deltaRetention": {
            "min": round(min(retention.values(), default=1.0), 6),
            "median": round(verification.median_retention, 6),
        },
        "verification": {
            "sampled": verification.sampled,
            "mismatchedElements": verification.mismatched_elements,
            "maxUlp": round(verification.max_ulp, 3),
        },
        "warnings": [f"DeltaLost:{name}" for name in verification.lost],
        "figures": {"seconds": round(time.monotonic() - started, 3), "peakAnonymousBytes": _peak_anonymous()},
    }


def _dtype(plan: Plan) -> str:
    merged = {operation.dtype for operation in plan.operations if operation.kind == "LORA"}
    return DTYPE_NAMES.get(merged.pop(), "mixed") if len(merged) == 1 else "mixed"


def _serving(plan: Plan, config: Mapping[str, Any]) -> dict[str, int]:
    """Figures for the memory plan of a serving pod: KV bytes per token = 2 · layers · kv_heads · head_dim · 2 bytes."""
    text = config.get("text_config") or config
    heads = int(text.get("num_attention_heads") or 0)
    kv_heads = int(text.get("num_key_value_heads") or heads)
    head_dim = int(text.get("head_dim") or (int(text.get("hidden_size") or 0) // heads if heads else 0))
    layers = int(text.get("num_hidden_layers") or 0)
    return {
        "weightsBytes": sum(operation.nbytes for operation in plan.operations),
        "kvBytesPerToken": 2 * layers * kv_heads * head_dim * 2,
        "maxPositionEmbeddings": int(text.get("max_position_embeddings") or 0),
    }


def _peak_anonymous() -> int:
    """Peak of resident memory less what is backed by files, from /proc; 0 where there is none."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    figures = {key: int(value) * 1024 for key, value in re.findall(r"^(\w+):\s+(\d+) kB", status, flags=re.MULTILINE)}
    return max(0, figures.get("VmHWM", 0) - figures.get("RssFile", 0))


def _termination(request: Request, manifest: Mapping[str, Any], *, target: Path, adopted: bool) -> dict[str, object]:
    tensors, figures = manifest["tensors"], manifest["figures"]
    store = Path(os.environ.get("LORA_STORE", "/store"))
    path = target.relative_to(store).as_posix() if target.is_relative_to(store) else str(target)
    words = (
        "adopted an identical build" if adopted else f"merged {tensors['merged']} tensors, copied {tensors['copied']}"
    )
    return {
        "reason": "Merged",
        "message": f"{words} in {figures['seconds']} s",
        "artifact": {
            "buildHash": manifest["buildHash"],
            "digest": manifest["output"]["digest"],
            "path": path,
            "sizeBytes": manifest["output"]["bytes"],
            "dtype": manifest["output"]["dtype"],
            "quantization": request.quantization if request.quantization != "none" else "None",
            "serving": manifest["serving"],
        },
        "figures": {
            "seconds": figures["seconds"],
            "tensorsMerged": tensors["merged"],
            "tensorsCopied": tensors["copied"],
            "deltaRetentionMin": manifest["deltaRetention"]["min"],
            "peakMemoryBytes": figures["peakAnonymousBytes"],
        },
        "warnings": list(manifest["warnings"]),
    }


def _report(manifest: Mapping[str, Any], *, target: Path) -> dict[str, Any]:
    recipe = manifest["recipe"]
    return {
        "schemaVersion": 1,
        "success": True,
        "strategy": recipe["strategy"],
        "dtype": manifest["output"]["dtype"],
        "quantization": recipe["quantization"],
        "base": manifest["base"],
        "adapters": [{key: one[key] for key in ("name", "digest", "weight", "rank")} for one in manifest["adapters"]],
        "output": {"path": str(target), "digest": manifest["output"]["digest"], "bytes": manifest["output"]["bytes"]},
        "tensors": manifest["tensors"],
        "deltaRetention": manifest["deltaRetention"],
        "verification": manifest["verification"],
        "figures": manifest["figures"],
        "warnings": manifest["warnings"],
    }


def _weighted(text: str) -> tuple[Path, float]:
    """DIR or DIR=WEIGHT: only a number after the last `=` is a weight."""
    head, equals, tail = text.rpartition("=")
    if equals:
        try:
            return Path(head), float(tail)
        except ValueError:
            pass
    return Path(text), 1.0


def _show_table(plan: Plan) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(
        "tensor", "operation", "shape", "dtype", title=f"{plan.count('LORA')} merged, {plan.count('COPY')} copied"
    )
    for operation in plan.operations:
        if operation.kind != "COPY":
            shape = " × ".join(map(str, operation.source.shape))
            table.add_row(operation.source.name, operation.kind, shape, operation.dtype)
    Console().print(table)


def _show_summary(manifest: Mapping[str, Any], *, target: Path, adopted: bool) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(show_header=False, title="adopted (identical build)" if adopted else "merged")
    retention = manifest["deltaRetention"]
    for key, value in (
        ("output", str(target)),
        ("digest", manifest["output"]["digest"]),
        ("tensors", f"{manifest['tensors']['merged']} merged, {manifest['tensors']['copied']} copied"),
        ("delta kept", f"min {retention['min']:.3f}, median {retention['median']:.3f}"),
        ("seconds", str(manifest["figures"]["seconds"])),
    ):
        table.add_row(key, value)
    Console(stderr=True).print(table)

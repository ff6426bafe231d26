"""`lora-job inspect` and `lora-job merge` on the command line."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_job.digest import parse_digest
from lora_job.files import check_directory
from lora_job.merge.heap import uncollected
from lora_job.merge.recipe import OutputDtype, Quantization, Recipe, Strategy
from lora_job.merge.request import MergeRequest
from lora_job.merge.source_digests import SourceDigests
from lora_job.outcome import Done, Refused
from lora_job.reasons import Reason

__all__ = ["RESOURCE_WORDS", "register"]

Adapters = Annotated[list[str], typer.Option(help="Directory of an adapter, DIR or DIR=WEIGHT; repeat it for several.")]
Base = Annotated[Path, typer.Option(help="Directory of the base model.")]
Unverified = Annotated[
    bool, typer.Option("--allow-unverified-base", help="Merge although the adapter names another base.")
]
StrategyName = Annotated[str, typer.Option(help="linear|slerp|task_arithmetic|ties|dare_linear|dare_ties")]
Scale = Annotated[float, typer.Option(help="Factor on the combined delta.")]
T = Annotated[float, typer.Option(help="slerp: between the first (0) and the second (1) adapter.")]
Density = Annotated[float, typer.Option(help="ties, dare: share of each delta that is kept, above 0 and up to 1.")]
Seed = Annotated[int, typer.Option(help="dare: seed of the random drop.")]
QuantizationName = Annotated[str, typer.Option(help="none|bnb-nf4|bnb-int8|fp8-dynamic|w4a16")]
Template = Annotated[str, typer.Option(help="sha256 of the one changed chat template that may come with the adapter.")]
DEVICES = ("auto", "cpu", "cuda")
SWITCH_SECONDS = 0.0002
"""Whoever hashes needs the interpreter for a moment between two blocks, and would wait for it 5 ms each time while modules are imported."""
# How the resource spells what the command line spells with dashes.
RESOURCE_WORDS = {
    "none": "None",
    "bnb-nf4": "BnbNF4",
    "bnb-int8": "BnbInt8",
    "fp8-dynamic": "FP8Dynamic",
    "w4a16": "W4A16",
}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(inspect)
    app.command()(merge)


def inspect(
    *,
    base: Base,
    adapter: Adapters,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON.")] = False,
    strategy: StrategyName = "linear",
    scale: Scale = 1.0,
    t: T = 0.5,
    density: Density = 0.5,
    seed: Seed = 0,
    quantization: QuantizationName = "none",
    allow_unverified_base: Unverified = False,
    allow_chat_template: Template = "",
) -> Done:
    """Show what a merge would do to every tensor; refuses what merge would refuse."""
    with uncollected():
        from lora_job.merge.pipeline import inspect_sources  # noqa: PLC0415
    from lora_job.merge.tables import show_plan  # noqa: PLC0415

    recipe = {
        "strategy": strategy, "scale": scale, "t": t, "density": density, "seed": seed, "quantization": quantization,
        "allowed_chat_template": _hex(allow_chat_template),
    }  # fmt: skip
    inspected = inspect_sources(_request(base, adapter, allow_unverified_base=allow_unverified_base, recipe=recipe))
    if as_json:
        sys.stdout.write(json.dumps(inspected.plan.as_json(), indent=1) + "\n")
    else:
        show_plan(inspected)
    merged = sum(bool(step.terms) for step in inspected.plan.steps)
    return Done(message=f"{merged} of {len(inspected.plan.steps)} tensors would be merged")


def merge(
    *,
    base: Base,
    adapter: Adapters,
    output: Annotated[Path | None, typer.Option(help="Publish exactly here.")] = None,
    output_root: Annotated[
        Path | None, typer.Option(help="Publish below here, in a directory named by the build's hash.")
    ] = None,
    strategy: StrategyName = "linear",
    scale: Scale = 1.0,
    t: T = 0.5,
    density: Density = 0.5,
    seed: Seed = 0,
    dtype: Annotated[str, typer.Option(help="auto|bfloat16|float16|float32")] = "auto",
    device: Annotated[str, typer.Option(help="cpu (which auto is) or cuda, for the products alone.")] = "auto",
    quantization: QuantizationName = "none",
    allow_unverified_base: Unverified = False,
    allow_chat_template: Template = "",
    workers: Annotated[int, typer.Option(min=1, help="Files at a time.")] = 2,
    fetch_report: Annotated[
        Path | None, typer.Option(help="Report of `lora-job fetch`: saves a second read of the sources.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Where to write the report, as JSON.")] = None,
) -> Done:
    """Merge adapters into a base: streamed, verified, published by one rename."""
    if (output is None) == (output_root is None):
        raise Refused(Reason.INVALID_OPTION, "give exactly one of --output and --output-root")
    if device not in DEVICES:
        raise Refused(Reason.INVALID_OPTION, f"--device {device}: expected one of {', '.join(DEVICES)}")
    recipe = {
        "strategy": strategy, "scale": scale, "t": t, "density": density, "seed": seed, "dtype": dtype,
        "quantization": quantization, "allowed_chat_template": _hex(allow_chat_template),
    }  # fmt: skip
    request = replace(
        _request(base, adapter, allow_unverified_base=allow_unverified_base, recipe=recipe),
        output=output,
        output_root=output_root,
        workers=workers,
        fetch_report=fetch_report,
        device=device,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    # Read when numpy is loaded. Its products are small, and workers are what runs in parallel.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with SourceDigests(request) as digests:
        with uncollected():
            from lora_job.merge.pipeline import merge_digested  # noqa: PLC0415 (the base is hashed meanwhile)
        final, manifest, adopted = merge_digested(request, digests)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(_report(manifest, final=final), indent=1, ensure_ascii=False), encoding="utf-8")
    if sys.stderr.isatty():
        from lora_job.merge.tables import show_result  # noqa: PLC0415

        show_result(manifest, final=final, adopted=adopted)
    return _done(manifest, final=final, adopted=adopted)


def _request(
    base: Path, adapters: Sequence[str], *, allow_unverified_base: bool, recipe: Mapping[str, Any]
) -> MergeRequest:
    pairs = [_weighted(text) for text in adapters]
    words = {"strategy": Strategy, "dtype": OutputDtype, "quantization": Quantization}
    values = {key: _word(f"--{key}", value, words[key]) if key in words else value for key, value in recipe.items()}
    parsed = Recipe(weights=tuple(weight for _, weight in pairs), **values)
    return MergeRequest(
        base=check_directory(base, what="base"),
        adapters=tuple(check_directory(path, what="adapter") for path, _ in pairs),
        recipe=parsed,
        allow_unverified_base=allow_unverified_base,
    )


def _word(option: str, value: str, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise Refused(Reason.INVALID_OPTION, f"{option} {value}: expected one of {', '.join(kind)}") from None


def _hex(digest: str) -> str:
    """64 hex digits, with or without `sha256:` before them; "" when none is allowed."""
    if not digest:
        return ""
    return parse_digest(f"sha256:{digest.removeprefix('sha256:')}", where="--allow-chat-template").removeprefix(
        "sha256:"
    )


def _weighted(text: str) -> tuple[Path, float]:
    """DIR or DIR=WEIGHT: only a number after the last `=` is a weight."""
    head, equals, tail = text.rpartition("=")
    if equals:
        try:
            return Path(head), float(tail)
        except ValueError:
            pass  # the name itself has an `=`
    return Path(text), 1.0


def _done(manifest: Mapping[str, Any], *, final: Path, adopted: bool) -> Done:
    tensors, figures = manifest["tensors"], manifest["figures"]
    store = Path(os.environ.get("LORA_STORE", "/store"))
    path = final.relative_to(store).as_posix() if final.is_relative_to(store) else str(final)
    words = (
        "an identical build was there and verifies"
        if adopted
        else f"merged {tensors['merged']} tensors in {figures['seconds']} s"
    )
    return Done(
        message=f"{words}; {manifest['output']['digest']}",
        artifact={
            "buildHash": manifest["buildHash"],
            "digest": manifest["output"]["digest"],
            "path": path,
            "sizeBytes": manifest["output"]["bytes"],
            "dtype": manifest["output"]["dtype"],
            "quantization": RESOURCE_WORDS[manifest["recipe"]["quantization"]],
            "serving": manifest["serving"],
        },
        figures={
            "seconds": figures["seconds"],
            "tensorsMerged": tensors["merged"],
            "tensorsCopied": tensors["copied"],
            "deltaRetentionMin": manifest["deltaRetention"]["min"],
            "peakMemoryBytes": figures["peakAnonymousBytes"],
        },
        extra={"warnings": sorted({warning["code"] for warning in manifest["warnings"]})},
    )


def _report(manifest: Mapping[str, Any], *, final: Path) -> dict[str, Any]:
    recipe = manifest["recipe"]
    return {
        "schemaVersion": 1,
        "success": True,
        "strategy": recipe["strategy"],
        "dtype": manifest["output"]["dtype"],
        "quantization": recipe["quantization"],
        "base": manifest["base"],
        "adapters": [{key: one[key] for key in ("name", "digest", "weight", "rank")} for one in manifest["adapters"]],
        "output": {"path": str(final), "digest": manifest["output"]["digest"], "bytes": manifest["output"]["bytes"]},
        "tensors": manifest["tensors"],
        "deltaRetention": {key: manifest["deltaRetention"][key] for key in ("min", "median")},
        "verification": manifest["verification"],
        "figures": manifest["figures"],
        "warnings": manifest["warnings"],
    }

"""Is every tensor of the merged model what base + adapter gives?

Streams the checkpoint tensor by tensor and in chunks of rows, recomputes W + Σ c·s·B@A independently of the merge
engine, rounds once to the stored dtype and compares bits; everything the adapter does not touch must be equal bit for
bit. One forgotten module of 210 is invisible in logits and plain here. Memory does not grow with the model.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lora_job.outcome import Refused
from lora_job.validate.recipe import Recipe

CHUNK_ELEMENTS = 4_000_000
# What a correct merge may differ from the float64 result rounded once (design: merge.md, figures to reach).
ALLOWED_SHARE: Mapping[torch.dtype, float] = {torch.bfloat16: 1e-4, torch.float16: 5e-4, torch.float32: 1e-5}
MAX_ULP = 1
NEAR_ZERO = 2.0**-22
_FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_KEY = re.compile(r"^(?:base_model\.model\.)+(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")

Tick = Callable[[int], None]


class Checkpoint:
    """Tensors by name, over one or several safetensors files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: dict[str, Any] = {
            path.name: safe_open(path, framework="pt") for path in sorted(directory.glob("*.safetensors"))
        }
        self._file_of = {name: file for file, opened in self._files.items() for name in opened.keys()}  # noqa: SIM118 - not a dict

    @property
    def names(self) -> list[str]:
        return sorted(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[self._file_of[name]].get_slice(name).get_shape())

    def rows(self, name: str, start: int, end: int) -> torch.Tensor:
        """A range of the first dimension; a scalar comes whole."""
        opened = self._files[self._file_of[name]]
        if not self.shape(name):
            whole: torch.Tensor = opened.get_tensor(name)
            return whole
        part: torch.Tensor = opened.get_slice(name)[start:end]
        return part

    def whole(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[self._file_of[name]].get_tensor(name)
        return tensor


@dataclass(frozen=True, kw_only=True)
class Delta:
    """One low-rank term: weight · scaling · B @ A."""

    a: torch.Tensor
    b: torch.Tensor
    factor: float


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One tensor that is not what it should be."""

    tensor: str
    problem: str
    share: float
    """Share of elements that differ beyond rounding."""
    max_ulp: float


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """The result over all tensors."""

    checked: int
    merged: int
    mismatched: tuple[Finding, ...]
    retention_min: float | None
    """Smallest ⟨W'−W, Δ⟩/⟨Δ, Δ⟩ over merged tensors: 1 kept whole, 0.5 half-scaled, 0 forgotten."""
    retention_median: float | None

    @property
    def problems(self) -> list[str]:
        ordered = sorted(self.mismatched, key=lambda finding: -finding.share)
        return [f"{finding.tensor}: {finding.problem}" for finding in ordered]

    def as_json(self) -> dict[str, object]:
        worst = max(self.mismatched, key=lambda finding: finding.share, default=None)
        return {
            "checked": self.checked,
            "merged": self.merged,
            "mismatched": len(self.mismatched),
            "worst": None
            if worst is None
            else {"tensor": worst.tensor, "problem": worst.problem, "share": worst.share, "maxUlp": worst.max_ulp},
            "deltaRetention": {"min": self.retention_min, "median": self.retention_median},
        }


def _pattern_value(patterns: Mapping[str, Any], module: str, default: float) -> float:
    """PEFT's rule: the first key, in file order, that matches the end of the module's name."""
    for key, value in patterns.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return float(value)
    return default


def scaling(config: Mapping[str, Any], module: str, *, rank: int) -> float:
    """α/r, or α/√r for rank-stabilised LoRA, with the module's own α and r."""
    alpha = _pattern_value(config.get("alpha_pattern") or {}, module, float(config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused("AdapterNotFound", f"{path}: the adapter cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Refused("InvalidAdapter", f"{path}: expected JSON: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("lora_alpha"), int | float):
        raise Refused("InvalidAdapter", f"{path}: field 'lora_alpha': expected a number")
    if config.get("use_dora"):
        raise Refused("UnsupportedRecipe", f"{path}: field 'use_dora': DoRA deltas cannot be recomputed here")
    return config


def read_adapter(directory: Path, *, weight: float) -> dict[str, Delta]:
    """Low-rank terms by the name of the base tensor they change."""
    config = _read_config(directory)
    try:
        checkpoint = Checkpoint(directory)
    except (SafetensorError, OSError) as error:
        raise Refused("InvalidAdapter", f"{directory}: the adapter's weights cannot be read: {error}") from None
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name in checkpoint.names:
        match = _KEY.match(name)
        if match is None:
            raise Refused("UnsupportedRecipe", f"{directory}: tensor {name} is not a LoRA factor of a linear layer")
        sides.setdefault(match["module"], {})[match["side"]] = checkpoint.whole(name)
    deltas = {}
    for module, pair in sides.items():
        if pair.keys() != {"A", "B"}:
            raise Refused("InvalidAdapter", f"{directory}: module {module} has lora_{next(iter(pair))} alone")
        rank = pair["A"].shape[0]
        deltas[f"{module}.weight"] = Delta(a=pair["A"], b=pair["B"], factor=weight * scaling(config, module, rank=rank))
    return deltas


def read_deltas(adapters: Sequence[Path], recipe: Recipe) -> dict[str, list[Delta]]:
    """All terms by tensor name, with the recipe's weights and scale applied."""
    if recipe.strategy not in {"linear", "task_arithmetic"}:
        raise Refused(
            "UnsupportedRecipe",
            f"merge.json: field 'strategy': {recipe.strategy} cannot be recomputed; expected linear or task_arithmetic",
        )
    if len(adapters) != len(recipe.weights):
        raise Refused(
            "WrongAdapters", f"expected {len(recipe.weights)} adapters as in merge.json, found {len(adapters)}"
        )
    total = sum(recipe.weights) if recipe.strategy == "linear" and len(recipe.weights) > 1 else 1.0
    terms: dict[str, list[Delta]] = {}
    for directory, weight in zip(adapters, recipe.weights, strict=True):
        for name, delta in read_adapter(directory, weight=weight / total * recipe.scale).items():
            terms.setdefault(name, []).append(delta)
    return terms


def _ulp_distance(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """How many representable numbers lie between two tensors of one dtype."""
    width = {
        torch.bfloat16: torch.int16,
        torch.float16: torch.int16,
        torch.float32: torch.int32,
        torch.float64: torch.int64,
    }
    integer = width[left.dtype]
    lowest = torch.iinfo(integer).min

    def ordered(values: torch.Tensor) -> torch.Tensor:
        bits = values.contiguous().view(integer).to(torch.int64)
        return torch.where(bits < 0, lowest - bits, bits)

    return (ordered(left) - ordered(right)).abs()


@dataclass(kw_only=True)
class _Tally:
    """Sums over the chunks of one tensor."""

    elements: int = 0
    different: int = 0
    beyond: int = 0
    max_ulp: float = 0.0
    along: float = 0.0
    delta_square: float = 0.0

    @property
    def retention(self) -> float | None:
        return self.along / self.delta_square if self.delta_square > 0 else None


def _exact_rows(base: torch.Tensor, terms: Sequence[Delta], start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(W, Δ) of some rows in float64."""
    delta = torch.zeros(base.shape, dtype=torch.float64)
    for term in terms:
        delta += (term.b[start:end].double() * term.factor) @ term.a.double()
    return base.double(), delta


def _compare_merged(
    tally: _Tally, *, merged: torch.Tensor, base: torch.Tensor, terms: Sequence[Delta], start: int, end: int
) -> None:
    """Float32 first; only rows that differ are calculated again in float64, so a correct merge costs one pass."""
    delta32 = torch.zeros(base.shape, dtype=torch.float32)
    for term in terms:
        delta32 += (term.b[start:end].float() * term.factor) @ term.a.float()
    base32 = base.float()
    quick = (base32 + delta32).to(merged.dtype)
    change = merged.float() - base32
    tally.along += float((change * delta32).sum(dtype=torch.float64))
    tally.delta_square += float(delta32.square().sum(dtype=torch.float64))
    tally.elements += merged.numel()
    rows = (quick != merged).any(dim=1).nonzero().flatten()
    if not len(rows):
        return
    parts = [Delta(a=term.a, b=term.b[start:end][rows], factor=term.factor) for term in terms]
    weights, delta = _exact_rows(base[rows], parts, 0, len(rows))
    expected = (weights + delta).to(merged.dtype)
    found = merged[rows]
    different = found != expected
    tally.different += int(different.sum())
    ulp = _ulp_distance(found, expected)
    size = torch.maximum(weights.abs(), delta.abs())
    excused = (found.double() - (weights + delta)).abs() <= NEAR_ZERO * size
    beyond = different & (ulp > MAX_ULP) & ~excused
    tally.beyond += int(beyond.sum())
    if bool(different.any()):
        tally.max_ulp = max(tally.max_ulp, float(ulp[different].max()))


def _row_chunks(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    if not shape:
        yield 0, 1
        return
    per_row = max(1, math.prod(shape[1:]))
    step = max(1, CHUNK_ELEMENTS // per_row)
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _check_copy(model: Checkpoint, base: Checkpoint, name: str) -> Finding | None:
    different = total = 0
    for start, end in _row_chunks(base.shape(name)):
        ours, theirs = model.rows(name, start, end), base.rows(name, start, end)
        if ours.dtype is theirs.dtype:
            different += int((_bits(ours) != _bits(theirs)).sum())
        else:
            different += int((ours != theirs.to(ours.dtype)).sum())
        total += max(1, ours.numel())
    if not different:
        return None
    return Finding(
        tensor=name,
        problem="differs from the base although the adapter does not touch it",
        share=min(1.0, different / total),
        max_ulp=math.inf,
    )


def _check_merged(
    model: Checkpoint, base: Checkpoint, name: str, terms: Sequence[Delta]
) -> tuple[Finding | None, float | None]:
    tally = _Tally()
    dtype = torch.float32
    for start, end in _row_chunks(base.shape(name)):
        merged = model.rows(name, start, end)
        dtype = merged.dtype
        _compare_merged(tally, merged=merged, base=base.rows(name, start, end), terms=terms, start=start, end=end)
    share = tally.different / max(1, tally.elements)
    if not tally.beyond and share <= ALLOWED_SHARE.get(dtype, 0.0):
        return None, tally.retention
    kept = "" if tally.retention is None else f", {tally.retention:.2f} of the adapter's change is there"
    problem = f"{share:.2%} of the elements are not base + adapter{kept}"
    return Finding(tensor=name, problem=problem, share=share, max_ulp=tally.max_ulp), tally.retention


def _check_shapes(base: Checkpoint, terms: Mapping[str, Sequence[Delta]]) -> list[Finding]:
    """Terms that fit no base tensor: the adapter was made for another model."""
    found = []
    names = set(base.names)
    for name, deltas in terms.items():
        if name not in names:
            problem = "the adapter changes it, but the base has no such tensor"
            found.append(Finding(tensor=name, problem=problem, share=1.0, max_ulp=math.inf))
            continue
        for delta in deltas:
            shape = (delta.b.shape[0], delta.a.shape[1])
            if base.shape(name) != shape:
                problem = f"the adapter changes {shape}, the base has {base.shape(name)}"
                found.append(Finding(tensor=name, problem=problem, share=1.0, max_ulp=math.inf))
    return found


def check(*, model: Checkpoint, base: Checkpoint, terms: Mapping[str, Sequence[Delta]], tick: Tick) -> Fidelity:
    """Every tensor of base and model; `tick` is told of each finished one."""
    findings = _check_shapes(base, terms)
    unusable = {finding.tensor for finding in findings}
    ours, theirs = set(model.names), set(base.names)
    for name, problem in [
        *((name, "is missing from the merged model") for name in sorted(theirs - ours)),
        *((name, "is not in the base") for name in sorted(ours - theirs)),
    ]:
        findings.append(Finding(tensor=name, problem=problem, share=1.0, max_ulp=math.inf))
    retentions = []
    merged = 0
    for name in sorted(ours & theirs):
        tick(1)
        if name in unusable:
            continue
        if model.shape(name) != base.shape(name):
            problem = f"has shape {model.shape(name)}, the base {base.shape(name)}"
            findings.append(Finding(tensor=name, problem=problem, share=1.0, max_ulp=math.inf))
        elif name in terms:
            merged += 1
            finding, retention = _check_merged(model, base, name, terms[name])
            findings += [finding] if finding else []
            retentions += [retention] if retention is not None else []
        else:
            finding = _check_copy(model, base, name)
            findings += [finding] if finding else []
    ordered = sorted(retentions)
    middle = ordered[len(ordered) // 2] if ordered else None
    return Fidelity(
        checked=len(ours & theirs),
        merged=merged,
        mismatched=tuple(findings),
        retention_min=ordered[0] if ordered else None,
        retention_median=middle,
    )


def non_finite_tensors(model: Checkpoint, *, tick: Tick) -> list[str]:
    """Names of tensors that hold NaN or Inf."""
    found = []
    for name in model.names:
        tick(1)
        for start, end in _row_chunks(model.shape(name)):
            part = model.rows(name, start, end)
            if part.dtype in _FLOATS and not bool(torch.isfinite(part).all()):
                found.append(name)
                break
    return found

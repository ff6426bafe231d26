"""Is every tensor of the merged model what its recipe makes of base and adapters?

Plans the recipe again from the sources, calculates every tensor again in chunks of rows, rounds once to the stored dtype and compares
bits; whatever no adapter touches must be equal bit for bit. One forgotten module of 210 is invisible in logits and plain here. What is
read is the model's files alone: its manifest is not believed. Memory does not grow with the model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lora_job.merge.adapter import Adapter, read_adapter
from lora_job.merge.build_plan import build_plan
from lora_job.merge.encode import quantized_plan
from lora_job.merge.encoded import StoredLayer, compare_encoded, too_far
from lora_job.merge.factors import Deltas
from lora_job.merge.operations import calculate, working_dtype
from lora_job.merge.plan import WHOLE, Operation, Plan, Step
from lora_job.merge.rounding import TORCH, round_once, ulp_distance
from lora_job.merge.sampled import ALLOWED_SHARE, MAX_ULP, NEAR_ZERO
from lora_job.merge.stored_numbers import is_finite
from lora_job.merge.strategies.oracle import load_oracle
from lora_job.merge.stream import OpenFiles, Reader, Sources, chunks
from lora_job.merge.torch_rows import read_rows
from lora_job.model_config import read_config
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_BYTES, FLOATS, Entry, Header, read_checkpoint, read_header
from lora_job.tensors import Checkpoint as BaseCheckpoint
from lora_job.validate.recipe import Recipe

__all__ = [
    "MISFITS",
    "Checkpoint",
    "Expected",
    "Fidelity",
    "Finding",
    "check",
    "expect",
    "impossible",
    "non_finite_tensors",
]

MISFITS = frozenset({Reason.WRONG_BASE, Reason.UNMATCHED_KEYS, Reason.SHAPE_MISMATCH, Reason.MISSING_BIAS})
"""Refusals of a plan that mean: these adapters were not trained on this base."""
_FP8 = "F8_E4M3"
Tick = Callable[[int], None]


class Checkpoint:
    """The tensors of a model by name, over whatever safetensors files lie there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        headers = [read_header(path) for path in sorted(directory.glob("*.safetensors"))]
        self._found: dict[str, tuple[Header, Entry]] = {
            entry.name: (header, entry) for header in headers for entry in header.entries
        }

    @property
    def names(self) -> list[str]:
        return sorted(self._found)

    def entry(self, name: str) -> Entry:
        return self._found[name][1]

    def find(self, name: str) -> tuple[Header, Entry]:
        """Where a tensor is described."""
        return self._found[name]

    def data_bytes(self) -> int:
        """What all tensors take on the disk."""
        return sum(math.prod(entry.shape) * DTYPE_BYTES[entry.dtype] for _, entry in self._found.values())

    def stored_dtype(self) -> torch.dtype:
        """What its weights are stored as: the dtype of most of its numbers."""
        sizes: dict[str, int] = {}
        for _, entry in self._found.values():
            if entry.dtype in FLOATS:
                sizes[entry.dtype] = sizes.get(entry.dtype, 0) + math.prod(entry.shape)
        return TORCH[max(sizes, key=sizes.__getitem__)] if sizes else torch.float32

    def reader(self, name: str, *, files: OpenFiles) -> Reader:
        """Rows of a tensor."""
        return files.reader(*self._found[name])


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a model should hold: a plan, and the sources it is calculated from."""

    base: BaseCheckpoint
    adapters: tuple[Adapter, ...]
    plan: Plan


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


def expect(base: Path, adapters: Sequence[Path], recipe: Recipe, *, digests: Sequence[str] = ()) -> Expected:
    """Plans a recipe; refused where its sources cannot be merged at all. dare draws by the adapters' `digests`."""
    if len(adapters) != len(recipe.weights):
        raise Refused(
            "WrongAdapters", f"expected {len(recipe.weights)} adapters as in merge.json, found {len(adapters)}"
        )
    checkpoint = read_checkpoint(base)
    parsed = tuple(
        replace(read_adapter(path), digest=digest)
        for path, digest in zip(adapters, digests or [""] * len(adapters), strict=True)
    )
    config, planned = read_config(base), recipe.for_planning()
    plan = build_plan(base=checkpoint, config=config, adapters=parsed, recipe=planned)
    plan = quantized_plan(plan, config=config, recipe=planned)
    return Expected(base=checkpoint, adapters=parsed, plan=plan)


def impossible(why: str) -> Fidelity:
    """The result where base and adapters do not even fit each other, so that no model can be faithful to them."""
    finding = Finding(tensor="every tensor", problem=why, share=1.0, max_ulp=math.inf)
    return Fidelity(checked=0, merged=0, mismatched=(finding,), retention_min=None, retention_median=None)


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

    def quick(self, found: torch.Tensor, *, before: torch.Tensor, after: torch.Tensor) -> bool:
        """Whether some rows are what the engine's own arithmetic gives, bit for bit."""
        expected = _rounded(after, found.dtype)
        delta = after - before
        self.along += float(((found.to(after.dtype) - before) * delta).sum(dtype=torch.float64))
        self.delta_square += float(delta.square().sum(dtype=torch.float64))
        self.elements += found.numel()
        return torch.equal(found, expected)

    def exactly(self, found: torch.Tensor, *, before: torch.Tensor, after: torch.Tensor) -> None:
        """Compares with float64 rounded once."""
        expected = _rounded(after, found.dtype)
        different = found != expected
        self.different += int(different.sum())
        distance = ulp_distance(found, expected)
        # Where W and Δ cancel, a unit in the last place of the tiny result means nothing.
        size = torch.maximum(before.abs(), (after - before).abs())
        excused = (found.double() - after).abs() <= NEAR_ZERO * size
        self.beyond += int((different & (distance > MAX_ULP) & ~excused).sum())
        if bool(different.any()):
            self.max_ulp = max(self.max_ulp, float(distance[different].max()))


def _rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return round_once(values, dtype) if values.dtype is torch.float64 else values.to(dtype)


def _check_merged(
    step: Step, found: Reader, *, sources: Sources, deltas: Deltas
) -> tuple[Finding | None, float | None]:
    """The engine's arithmetic first; only chunks that differ are calculated in float64, so a correct merge costs one pass."""
    tally = _Tally()
    ours = calculate(step, sources=sources, deltas=deltas, dtype=working_dtype(step))
    exact = calculate(step, sources=sources, deltas=deltas, dtype=torch.float64)
    for start, end in chunks(step.shape, item=DTYPE_BYTES[step.source_dtype]):
        stored, rows = read_rows(found, start, end), ours.rows(start, end)
        if rows.before is not None and not tally.quick(stored, before=rows.before, after=rows.after):
            again = exact.rows(start, end)
            if again.before is not None:
                tally.exactly(stored, before=again.before, after=again.after)
    share = tally.different / max(1, tally.elements)
    if not tally.beyond and share <= ALLOWED_SHARE[step.dtype]:
        return None, tally.retention
    kept = "" if tally.retention is None else f", {tally.retention:.2f} of the adapter's change is there"
    problem = f"{share:.2%} of the elements are not base + adapter{kept}"
    return Finding(tensor=step.name, problem=problem, share=share, max_ulp=tally.max_ulp), tally.retention


def _check_unmerged(step: Step, found: Reader, *, sources: Sources, deltas: Deltas) -> Finding | None:
    """Nothing is calculated, so nothing may differ: bytes where the dtype stayed, else the numbers rounded once."""
    different = total = 0
    reader = sources.origin_rows(step)
    calculation = None if step.is_plain_copy else calculate(step, sources=sources, deltas=deltas, dtype=torch.float64)
    for start, end in chunks(step.shape, item=max(DTYPE_BYTES[step.dtype], DTYPE_BYTES[step.source_dtype])):
        if calculation is None:
            ours, theirs = (torch.from_numpy(one.data(start, end)) for one in (found, reader))
        else:
            ours = read_rows(found, start, end)
            theirs = _rounded(calculation.rows(start, end).after.double(), ours.dtype)
        different += int((ours != theirs).sum())
        total += ours.numel()
    if not different:
        return None
    problem = (
        "differs from the base although the adapter does not touch it"
        if step.operation in {Operation.COPY, Operation.UNTIE}
        else "is not the adapter's own tensor"
        if step.operation in WHOLE
        else "is not the base with the adapter's rows"
    )
    return Finding(tensor=step.name, problem=problem, share=different / total, max_ulp=math.inf)


def _stored_as(step: Step, entry: Entry) -> Step | None:
    """The step for the dtype that is really there; None when no rounding leads to it."""
    if step.dtype == entry.dtype:
        return step
    return replace(step, dtype=entry.dtype) if {step.dtype, entry.dtype} <= FLOATS else None


def _unequal_names(model: Checkpoint, steps: Mapping[str, Step]) -> list[Finding]:
    planned, there = {one.name for step in steps.values() for one in step.stored}, set(model.names)
    found = [(name, "is missing from the merged model") for name in planned - there]
    found += [(name, "is not in the base, and no adapter adds it") for name in there - planned]
    return [Finding(tensor=name, problem=problem, share=1.0, max_ulp=math.inf) for name, problem in sorted(found)]


def _check_encoded(
    step: Step, *, model: Checkpoint, files: OpenFiles, sources: Sources, deltas: Deltas
) -> tuple[Finding | None, float | None]:
    """Dequantized, against float64: every element and every scale."""
    for stored in step.encoded:
        entry = model.entry(stored.name)
        if (entry.dtype, entry.shape) != (stored.dtype, stored.shape):
            problem = f"is {entry.dtype} {entry.shape}, {step.encoding} stores {stored.dtype} {stored.shape}"
            return Finding(tensor=stored.name, problem=problem, share=1.0, max_ulp=math.inf), None
    exact = calculate(step, sources=sources, deltas=deltas, dtype=torch.float64, load=load_oracle)
    try:
        found = compare_encoded(step, StoredLayer(step.name, find=model.find, files=files), exact)
    except (KeyError, ValueError, TypeError) as error:
        problem = f"holds no state that {step.encoding} can be read with: {error}"
        return Finding(tensor=step.name, problem=problem, share=1.0, max_ulp=math.inf), None
    problem = too_far(step, found)
    if not problem:
        return None, found.retention
    kept = "" if found.retention is None else f"; {found.retention:.2f} of the adapter's change is there"
    return Finding(tensor=step.name, problem=problem + kept, share=1.0, max_ulp=math.inf), found.retention


def _check_step(
    step: Step, *, model: Checkpoint, files: OpenFiles, sources: Sources, deltas: Deltas
) -> tuple[Finding | None, float | None]:
    if step.encoding:
        return _check_encoded(step, model=model, files=files, sources=sources, deltas=deltas)
    entry = model.entry(step.name)
    problem = ""
    stored = _stored_as(step, entry)
    if entry.shape != step.shape:
        problem = f"has shape {entry.shape}, expected {step.shape}"
    elif stored is None:
        problem = f"is stored as {entry.dtype}, expected {step.dtype}"
    if problem or stored is None:
        return Finding(tensor=step.name, problem=problem, share=1.0, max_ulp=math.inf), None
    found = model.reader(step.name, files=files)
    if step.terms:
        return _check_merged(stored, found, sources=sources, deltas=deltas)
    return _check_unmerged(stored, found, sources=sources, deltas=deltas), None


def check(*, model: Checkpoint, expected: Expected, tick: Tick) -> Fidelity:
    """Every tensor of plan and model; `tick` is told of each finished one."""
    steps = {step.name: step for step in expected.plan.steps}
    findings = _unequal_names(model, steps)
    retentions: list[float] = []
    names = set(model.names)
    there = sorted(name for name, step in steps.items() if all(one.name in names for one in step.stored))
    with OpenFiles() as files:
        deltas = Deltas(expected.adapters, files=files)
        sources = Sources(base=expected.base, adapters=expected.adapters, files=files)
        for name in there:
            finding, retention = _check_step(steps[name], model=model, files=files, sources=sources, deltas=deltas)
            findings += [finding] if finding else []
            retentions += [retention] if retention is not None else []
            tick(1)
    ordered = sorted(retentions)
    return Fidelity(
        checked=len(there),
        merged=sum(bool(steps[name].terms) for name in there),
        mismatched=tuple(findings),
        retention_min=ordered[0] if ordered else None,
        retention_median=ordered[len(ordered) // 2] if ordered else None,
    )


def non_finite_tensors(model: Checkpoint, *, tick: Tick) -> list[str]:
    """Names of tensors that hold NaN or Inf."""
    found = []
    with OpenFiles() as files:
        for name in model.names:
            tick(1)
            entry = model.entry(name)
            reader = model.reader(name, files=files)
            parts = chunks(entry.shape, item=DTYPE_BYTES[entry.dtype])
            if entry.dtype == _FP8:
                # No infinity and one NaN: all bits set but the sign's.
                finite = all(bool(((reader.data(start, end) & 127) != 127).all()) for start, end in parts)
            else:
                finite = entry.dtype not in FLOATS or all(
                    is_finite(reader.data(start, end), entry.dtype) for start, end in parts
                )
            found += [] if finite else [name]
    return found

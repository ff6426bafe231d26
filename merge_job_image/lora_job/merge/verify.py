"""Is what was written what the plan says? Always on, by reading the output again; nothing is published before it holds.

For every tensor: COPY is equal byte for byte. LORA: finite, ‖W'−W‖ fits ‖Δ‖, and a random projection W'x agrees with Wx + Δx.
A seeded sample (first, last, one per kind of layer, at least 16) is compared with float64, element by element.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lora_job.merge.adapter import Adapter
from lora_job.merge.engine import TORCH_DTYPES, chunk_rows, load_factors, read_rows
from lora_job.merge.plan import Operation, Plan
from lora_job.outcome import Refused
from lora_job.tensors import Checkpoint, Header, read_header

__all__ = ["Verification", "verify_output"]

SAMPLE = 16
# share of elements that may differ from float64-then-one-cast, and by how many units in the last place
ALLOWED_SHARE = {"BF16": 1e-4, "F16": 5e-4, "F32": 1e-5, "F64": 1e-5}
MAX_ULP = 1.0
# unit roundoff of the stored dtypes
ROUNDOFF = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24, "F64": 2.0**-53}
NEAR_ZERO = 2.0**-22
Advance = Callable[[int], None]


@dataclass
class Verification:
    """What was found; figures for manifest, report and status."""

    sampled: int = 0
    mismatched_elements: int = 0
    max_ulp: float = 0.0
    retention: dict[str, float] = field(default_factory=dict)  # by tensor: ⟨W'−W, Δ⟩ / ‖Δ‖²
    lost: list[str] = field(default_factory=list)  # tensors whose delta the dtype swallowed whole
    digests: dict[str, str] = field(default_factory=dict)  # sha256 of each tensor's bytes

    @property
    def median_retention(self) -> float:
        """Middle of the tensors' retention; 1 when nothing was merged."""
        values = sorted(self.retention.values())
        return values[len(values) // 2] if values else 1.0


def verify_output(
    plan: Plan, base: Checkpoint, adapters: Sequence[Adapter], *, target: Path, advance: Advance
) -> Verification:
    """Reads every shard again.

    Raises:
        Refused: VerificationFailed or NotFinite, naming the tensor; DeltaLost when no tensor kept any of its delta.
    """
    result = Verification()
    sample = _sample(plan)
    for name, header in base.shards.items():
        written = read_header(target / name)
        wanted = {operation.source.name: (operation.dtype, operation.source.shape) for operation in plan.shards[name]}
        found = {info.name: (info.dtype, info.shape) for info in written.tensors.values()}
        if found != wanted:
            raise Refused("VerificationFailed", f"{name}: the written header is not the planned one")
        with header.path.open("rb") as source, written.path.open("rb") as output:
            for operation in plan.shards[name]:
                pair = _Pair(source.fileno(), output.fileno(), header, written, operation)
                if operation.kind == "LORA":
                    _verify_merged(pair, adapters, result=result, sampled=operation.source.name in sample)
                else:
                    _verify_copied(pair, result=result)
                advance(operation.nbytes)
    if result.retention and len(result.lost) == len(result.retention):
        raise Refused(
            "DeltaLost",
            f"the output's dtype keeps nothing of the adapter in any of {len(result.lost)} tensors; use --dtype float32",
        )
    return result


@dataclass(frozen=True)
class _Pair:
    source: int
    output: int
    before: Header
    after: Header
    operation: Operation

    def old(self, start: int, stop: int) -> torch.Tensor:
        return read_rows(self.source, self.before, self.operation.source, start, stop)

    def new(self, start: int, stop: int) -> torch.Tensor:
        return read_rows(self.output, self.after, self.after.tensors[self.operation.source.name], start, stop)


def _verify_copied(pair: _Pair, *, result: Verification) -> None:
    name, digest = pair.operation.source.name, hashlib.sha256()
    info = pair.operation.source
    if info.dtype not in TORCH_DTYPES:
        _verify_bytes(pair, result=result)
        return
    for start, stop in chunk_rows(info):
        old, new = pair.old(start, stop), pair.new(start, stop)
        if not torch.equal(_bits(old.to(new.dtype)), _bits(new)):
            raise Refused("VerificationFailed", f"tensor {name} should be the base's, but differs from row {start} on")
        digest.update(_raw(new))
    result.digests[name] = digest.hexdigest()


def _verify_bytes(pair: _Pair, *, result: Verification) -> None:
    """Integers and other dtypes that are only ever copied."""
    info, after = pair.operation.source, pair.after.tensors[pair.operation.source.name]
    digest, block, done = hashlib.sha256(), 1 << 20, 0

    while done < info.nbytes:
        count = min(block, info.nbytes - done)
        old = os.pread(pair.source, count, pair.before.data + info.begin + done)
        new = os.pread(pair.output, count, pair.after.data + after.begin + done)
        if old != new or not old:
            raise Refused("VerificationFailed", f"tensor {info.name} should be the base's, but differs")
        digest.update(new)
        done += len(new)
    result.digests[info.name] = digest.hexdigest()


def _verify_merged(pair: _Pair, adapters: Sequence[Adapter], *, result: Verification, sampled: bool) -> None:
    operation, name = pair.operation, pair.operation.source.name
    exact = load_factors(operation, adapters, dtype=torch.float64)
    vector = torch.randn(operation.source.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    digest = hashlib.sha256()
    kept = change = delta_norm = weight_norm = 0.0
    projected = allowed = 0.0
    for start, stop in chunk_rows(operation.source):
        old, new = pair.old(start, stop), pair.new(start, stop)
        digest.update(_raw(new))
        if not torch.isfinite(new).all():
            raise Refused(
                "NotFinite",
                f"tensor {name}: the merged values hold NaN or Inf (overflow of {operation.dtype}?); use another --dtype",
            )
        wide_old, wide_new, delta = old.to(torch.float64), new.to(torch.float64), exact.rows(start, stop)
        moved = wide_new - wide_old
        kept += float((moved * delta).sum())
        change += float((moved * moved).sum())
        delta_norm += float((delta * delta).sum())
        weight_norm += float((wide_old * wide_old).sum())
        residual = (wide_new @ vector) - (wide_old @ vector) - (delta @ vector)
        projected += float((residual * residual).sum())
        allowed += float((wide_new.abs() ** 2).sum() + (delta.abs() ** 2).sum())
        if sampled:
            _compare(wide_old + delta, new, old=wide_old, delta=delta, operation=operation, result=result)
    result.digests[name] = digest.hexdigest()
    result.sampled += sampled
    _judge(name, operation, kept=kept, change=change, delta=delta_norm, weight=weight_norm, result=result)
    # Rounding errors are independent and at most u·|w|: their projection on a standard normal vector has that norm in expectation.
    bound = 8 * ROUNDOFF[operation.dtype] * math.sqrt(allowed) + 1e-12
    if math.sqrt(projected) > bound:
        raise Refused(
            "VerificationFailed",
            f"tensor {name}: W'x is not Wx + Δx (off by {math.sqrt(projected):.3g}, allowed {bound:.3g})",
        )


def _judge(
    name: str, operation: Operation, *, kept: float, change: float, delta: float, weight: float, result: Verification
) -> None:
    """The norm of the change must fit the norm of the delta, up to the rounding of every element."""
    if delta == 0:
        return
    result.retention[name] = kept / delta
    rounding = ROUNDOFF[operation.dtype] * math.sqrt(weight + delta)
    if change == 0:
        result.lost.append(name)
        if math.sqrt(delta) > rounding:
            raise Refused(
                "VerificationFailed",
                f"tensor {name} is unchanged although its delta exceeds the rounding of {operation.dtype}",
            )
    elif abs(math.sqrt(change) - math.sqrt(delta)) > 2 * rounding:
        raise Refused(
            "VerificationFailed",
            f"tensor {name} changed by {math.sqrt(change):.4g}, its delta is {math.sqrt(delta):.4g}",
        )


def _compare(
    exact: torch.Tensor,
    new: torch.Tensor,
    *,
    old: torch.Tensor,
    delta: torch.Tensor,
    operation: Operation,
    result: Verification,
) -> None:
    """Against float64 rounded once; near zero the bound is absolute, because there a unit in the last place means nothing."""
    once = _round_once(exact, TORCH_DTYPES[operation.dtype])
    differs = _bits(once) != _bits(new)
    if not bool(differs.any()):
        return
    error = (new.to(torch.float64) - once.to(torch.float64)).abs()
    unit = (
        torch.maximum(exact.abs(), torch.tensor(torch.finfo(new.dtype).tiny, dtype=torch.float64))
        * 2
        * ROUNDOFF[operation.dtype]
    )
    near_zero = error <= NEAR_ZERO * torch.maximum(old.abs(), delta.abs())
    count = int((differs & ~near_zero).sum())
    ulp = float((error / unit)[differs & ~near_zero].max()) if count else 0.0
    result.mismatched_elements += count
    result.max_ulp = max(result.max_ulp, ulp)
    # One chunk may be small: a handful of elements is not a share.
    if ulp > 2 * MAX_ULP or count > max(8, ALLOWED_SHARE[operation.dtype] * exact.numel() * 4):
        name = operation.source.name
        raise Refused(
            "VerificationFailed",
            f"tensor {name}: {count} elements of a chunk differ from float64, by up to {ulp:.2g} ulp",
        )


def _round_once(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float64 → dtype with one rounding. torch casts to 16 bits through float32 and rounds twice, so float32 is made odd first."""
    if dtype in {torch.float32, torch.float64}:
        return exact.to(dtype)
    narrow = exact.to(torch.float32)
    bits = narrow.view(torch.int32)
    inexact = narrow.to(torch.float64) != exact
    toward_zero = narrow.to(torch.float64).abs() > exact.abs()
    bits = torch.where(inexact & toward_zero, bits - 1, bits)
    return torch.where(inexact, bits | 1, bits).view(torch.float32).to(dtype)


def _sample(plan: Plan) -> frozenset[str]:
    """First, last, one per kind of layer, then evenly spread until there are 16."""
    merged = [operation.source.name for operation in plan.operations if operation.kind == "LORA"]
    if len(merged) <= SAMPLE:
        return frozenset(merged)
    chosen = {merged[0], merged[-1]}
    kinds: dict[str, str] = {}
    for name in merged:
        kinds.setdefault(re.sub(r"\d+", "#", name), name)
    chosen |= set(kinds.values())
    step = max(1, len(merged) // SAMPLE)
    for name in merged[::step]:
        if len(chosen) >= max(SAMPLE, len(kinds) + 2):
            break
        chosen.add(name)
    return frozenset(chosen)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(
        {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    )


def _raw(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(torch.uint8).numpy()).cast("B")

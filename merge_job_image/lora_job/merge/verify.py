"""Is what was written what the plan says? Always on: the file is read again, against the base, before anything is published.

    every COPY    equal to the base, byte for byte
    every merge   finite; ‖W'−W‖ fits ‖Δ‖; a random projection (W'−W)x agrees with Δx
    a sample      (first, last, one per kind, at least 16) against float64 rounded once, row by row

The same pass makes the digests of the file and of each tensor.
"""

import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from lora_job.merge.adapter import Adapter
from lora_job.merge.engine import StepFigures, chunks, matrix_shape, output_header
from lora_job.merge.factors import load_low_rank, read_into
from lora_job.merge.plan import Plan, ShardPlan, Step
from lora_job.merge.rounding import TORCH, round_once, ulp_distance
from lora_job.outcome import Infrastructure, Terminated
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_BYTES, Checkpoint, read_header

__all__ = ["ALLOWED_SHARE", "ShardProof", "Verifier", "chosen_sample"]

SAMPLE_TENSORS = 16
SAMPLE_ELEMENTS = 2**16
# Share of elements that may differ from float64 rounded once.
ALLOWED_SHARE: Mapping[str, float] = {"BF16": 1e-4, "F16": 5e-4, "F32": 1e-5, "F64": 1e-5}
MAX_ULP = 1
NEAR_ZERO = 2.0**-22
# A projection on ±1 has the rounding errors' norm in expectation; five times that is no accident.
PROJECTION_SLACK = 5.0
Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class ShardProof:
    """What a verified file is."""

    sha256: str
    tensors: Mapping[str, str]
    """sha256 by tensor."""
    sampled: int
    elements: int
    mismatched: int
    max_ulp: int


def chosen_sample(plan: Plan) -> frozenset[str]:
    """First, last, one per kind of layer, then evenly spread until there are 16."""
    merged = [step.name for step in plan.steps if step.terms]
    kinds = {re.sub(r"\d+", "#", name): name for name in reversed(merged)}
    chosen = {*merged[:1], *merged[-1:], *kinds.values()}
    spread = merged[:: max(1, len(merged) // SAMPLE_TENSORS)]
    for name in spread:
        if len(chosen) >= SAMPLE_TENSORS:
            break
        chosen.add(name)
    return frozenset(chosen)


def _wrong(step: Step, what: str) -> Infrastructure:
    return Infrastructure(
        Reason.VERIFICATION_FAILED,
        f"tensor {step.name}: {what}; nothing was published. Run again; if it stays so, test this machine's memory and disk",
    )


class Verifier:
    """Verifies shards of one build; each call uses descriptors and buffers of its own."""

    def __init__(
        self,
        *,
        base: Checkpoint,
        adapters: Sequence[Adapter],
        sample: frozenset[str],
        seed: int,
        tick: Tick,
        stop: threading.Event,
    ) -> None:
        self._base = base
        self._adapters = adapters
        self._entries = base.entries
        self._sample = sample
        self._seed = seed
        self._tick = tick
        self._stop = stop

    def verify(self, shard: ShardPlan, *, target: Path, figures: Mapping[str, StepFigures]) -> ShardProof:
        """Proof that the file is right, or an error that names the tensor."""
        head = output_header(shard, self._base.shards[shard.file])
        header = read_header(target)
        if header.raw != head:
            raise Infrastructure(Reason.VERIFICATION_FAILED, f"{target}: its header is not the planned one; run again")
        tally = _Tally()
        file_hash = hashlib.sha256(head)
        tensors = {}
        position = len(head)
        with closing(_Files(self._base, target)) as files:
            for step in shard.steps:
                hashes = (file_hash, hashlib.sha256())
                self._verify_step(step, files=files, position=position, hashes=hashes, figures=figures, tally=tally)
                tensors[step.name] = hashes[1].hexdigest()
                position += step.size
        return ShardProof(
            sha256=file_hash.hexdigest(),
            tensors=tensors,
            sampled=tally.sampled,
            elements=tally.elements,
            mismatched=tally.mismatched,
            max_ulp=tally.max_ulp,
        )

    def _verify_step(
        self,
        step: Step,
        *,
        files: "_Files",
        position: int,
        hashes: Sequence["hashlib._Hash"],
        figures: Mapping[str, StepFigures],
        tally: "_Tally",
    ) -> None:
        entry = self._entries[step.source or step.name]
        check = _Merged(step, self._adapters, seed=self._seed) if step.terms else None
        for start, end in chunks(step.shape, item=max(DTYPE_BYTES[step.dtype], DTYPE_BYTES[entry.dtype])):
            if self._stop.is_set():
                raise Terminated(Reason.TERMINATED, "stopped while verifying; nothing was published")
            new = files.new(step, position=position, start=start, end=end)
            old = files.old(step, entry_begin=entry.begin, start=start, end=end)
            for state in hashes:
                state.update(memoryview(new.numpy()))  # type: ignore[arg-type]
            if check is not None:
                check.look(old, new, start, end)
            elif step.is_plain_copy:
                if not torch.equal(old, new):
                    raise _wrong(step, f"rows {start} to {end} are not the base's")
            elif not torch.equal(_typed(old, step.source_dtype).to(TORCH[step.dtype]), _typed(new, step.dtype)):
                raise _wrong(step, f"rows {start} to {end} are not the base's in {step.dtype}")
            self._tick(len(new))
        if check is not None:
            check.judge(figures[step.name])
            if step.name in self._sample:
                self._compare_exactly(step, files=files, position=position, begin=entry.begin, tally=tally)

    def _compare_exactly(self, step: Step, *, files: "_Files", position: int, begin: int, tally: "_Tally") -> None:
        rows, columns = matrix_shape(step.shape)
        count = max(1, min(rows, SAMPLE_ELEMENTS // max(1, columns)))
        generator = torch.Generator().manual_seed(self._seed)
        chosen = torch.randperm(rows, generator=generator)[:count].sort().values
        exact = load_low_rank(step.terms, self._adapters, dtype=torch.float64)
        tally.sampled += 1
        for row in chosen.tolist():
            old = _typed(files.old(step, entry_begin=begin, start=row, end=row + 1), step.source_dtype).double()
            new = _typed(files.new(step, position=position, start=row, end=row + 1), step.dtype)
            delta = exact.rows(slice(row, row + 1)).reshape(-1)
            tally.compare(step, new=new, old=old, delta=delta, row=row)


@dataclass(kw_only=True)
class _Tally:
    """Sums over a shard's samples."""

    sampled: int = 0
    elements: int = 0
    mismatched: int = 0
    max_ulp: int = 0

    def compare(self, step: Step, *, new: torch.Tensor, old: torch.Tensor, delta: torch.Tensor, row: int) -> None:
        exact = old + delta
        expected = round_once(exact, new.dtype)
        self.elements += new.numel()
        different = new != expected
        if not bool(different.any()):
            return
        distance = ulp_distance(new, expected)
        # Where W and Δ cancel, a unit in the last place of the tiny result means nothing.
        excused = (new.double() - exact).abs() <= NEAR_ZERO * torch.maximum(old.abs(), delta.abs())
        counted = different & ~excused
        if not bool(counted.any()):
            return
        worst = int(distance[counted].max())
        self.mismatched += int(counted.sum())
        self.max_ulp = max(self.max_ulp, worst)
        if worst > MAX_ULP:
            raise _wrong(step, f"row {row} is {worst} units in the last place away from float64")


class _Files:
    """Byte ranges of the base's files and of the written one."""

    def __init__(self, base: Checkpoint, target: Path) -> None:
        self._base = base
        self._target = target
        self._output = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        self._sources: dict[str, int] = {}
        self._buffers = {name: torch.empty(0, dtype=torch.uint8) for name in ("old", "new")}

    def close(self) -> None:
        for descriptor in (self._output, *self._sources.values()):
            os.close(descriptor)

    def _read(self, which: str, descriptor: int, *, offset: int, size: int, where: str) -> torch.Tensor:
        if self._buffers[which].numel() < size:
            self._buffers[which] = torch.empty(size, dtype=torch.uint8)
        part = self._buffers[which][:size]
        read_into(descriptor, memoryview(part.numpy()), offset=offset, where=where)  # type: ignore[arg-type]
        return part

    def new(self, step: Step, *, position: int, start: int, end: int) -> torch.Tensor:
        """Bytes of rows of the output; valid until the next call."""
        row = matrix_shape(step.shape)[1] * DTYPE_BYTES[step.dtype]
        return self._read(
            "new", self._output, offset=position + start * row, size=(end - start) * row, where=str(self._target)
        )

    def old(self, step: Step, *, entry_begin: int, start: int, end: int) -> torch.Tensor:
        """Bytes of the same rows of the base."""
        if step.source is None:
            raise AssertionError(f"{step.name} has no base tensor")
        file = self._base.file_of[step.source]
        header = self._base.shards[file]
        if file not in self._sources:
            self._sources[file] = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC)
        row = matrix_shape(step.shape)[1] * DTYPE_BYTES[step.source_dtype]
        offset = header.data_start + entry_begin + start * row
        return self._read("old", self._sources[file], offset=offset, size=(end - start) * row, where=str(header.path))


def _typed(data: torch.Tensor, dtype: str) -> torch.Tensor:
    return data.view(TORCH[dtype])


class _Merged:
    """Checks over all chunks of one merged tensor."""

    def __init__(self, step: Step, adapters: Sequence[Adapter], *, seed: int) -> None:
        self._step = step
        self._columns = matrix_shape(step.shape)[1]
        # Another seed for each tensor would need a digest of its name; one vector per width is as good.
        generator = torch.Generator().manual_seed(seed + self._columns)
        self._signs = torch.randint(0, 2, (self._columns,), generator=generator).float().mul_(2).sub_(1)
        factors = load_low_rank(step.terms, adapters, dtype=torch.float64)
        self._expected = factors.left @ (factors.right @ self._signs.double())
        self._residual = 0.0
        self._magnitude = 0.0
        self._moved = 0.0
        self._finite = True

    def look(self, old: torch.Tensor, new: torch.Tensor, start: int, end: int) -> None:
        """Takes in a chunk."""
        before = _typed(old, self._step.source_dtype).view(end - start, self._columns).float()
        after = _typed(new, self._step.dtype).view(end - start, self._columns).float()
        change = after - before
        flat = change.view(-1)
        moved = float(torch.dot(flat, flat))
        self._moved += moved
        self._finite = self._finite and moved < float("inf")
        difference = (change @ self._signs).double() - self._expected[start:end]
        self._residual += float(torch.dot(difference, difference))
        self._magnitude += float(torch.dot(after.view(-1), after.view(-1)))

    def judge(self, figures: StepFigures) -> None:
        """Raises when the sums over all chunks do not fit the delta."""
        if not self._finite:
            raise _wrong(self._step, "it holds NaN or Inf")
        # float32 sums of this check itself are good to about 1e-6 of what is summed.
        noise = 2e-6 * (self._magnitude**0.5 + figures.delta)
        moved = self._moved**0.5
        if abs(moved - figures.delta) > figures.lost * 1.01 + noise:
            raise _wrong(
                self._step, f"it changed by {moved:.6g}, expected {figures.delta:.6g} within {figures.lost:.3g}"
            )
        allowed = PROJECTION_SLACK * figures.lost + noise * self._columns**0.5
        if self._residual**0.5 > allowed:
            raise _wrong(
                self._step, f"(W'−W)x is {self._residual**0.5:.6g} away from Δx, expected at most {allowed:.3g}"
            )

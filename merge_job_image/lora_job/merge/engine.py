"""Writes one shard: untouched ranges are copied by the kernel, merged tensors are streamed in chunks of rows.

    COPY ─► copy_file_range        LORA ─► 1 MiB of rows: f32(W) + left·right in one product, one rounding, pwrite

Chunks follow from a tensor's shape alone, so the bytes do not depend on the number of workers. float32 output is calculated in
float64. Memory is the factors of one tensor and a few chunks per worker, whatever the model's size.
"""

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from lora_job.merge.adapter import Adapter
from lora_job.merge.factors import LowRank, load_low_rank, read_into
from lora_job.merge.plan import ShardPlan, Step
from lora_job.merge.rounding import TORCH
from lora_job.outcome import Infrastructure, Refused, Terminated
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_BYTES, Checkpoint, Entry, Header

__all__ = ["StepFigures", "Writer", "chunks", "output_header", "working_dtype"]

CHUNK_BYTES = 2**20
COPY_BYTES = 64 * 2**20
Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """What a merged tensor's rounding did, measured while it was in the processor's cache."""

    delta: float
    """‖Δ‖"""
    moved: float
    """‖W'−W‖"""
    lost: float
    """‖W'−(W+Δ)‖: what the output's dtype could not keep."""

    @property
    def retention(self) -> float | None:
        """Share of the delta, in norm, that survived the rounding; None when there is no delta."""
        return max(0.0, 1.0 - self.lost / self.delta) if self.delta > 0 else None


def working_dtype(output: str) -> torch.dtype:
    """float32 is enough for 16 bits and one rounding; 32 bits need more."""
    return torch.float64 if output in {"F32", "F64"} else torch.float32


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns; a vector is a column, a scalar one element."""
    if not shape:
        return 1, 1
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (shape[0], 1)


def chunks(shape: Sequence[int], *, item: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about 1 MiB."""
    rows, columns = matrix_shape(shape)
    step = max(1, CHUNK_BYTES // max(1, columns * item))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def output_header(shard: ShardPlan, base: Header) -> bytes:
    """The base's own header where every tensor keeps name, dtype and place, so that even its padding stays; otherwise a new one."""
    same = len(shard.steps) == len(base.entries) and all(
        (step.name, step.dtype, step.shape) == (entry.name, entry.dtype, entry.shape)
        for step, entry in zip(shard.steps, base.entries, strict=True)
    )
    if same:
        return base.raw
    content: dict[str, object] = {"__metadata__": dict(base.metadata) or {"format": "pt"}}
    position = 0
    for step in shard.steps:
        content[step.name] = {
            "dtype": step.dtype,
            "shape": list(step.shape),
            "data_offsets": [position, position + step.size],
        }
        position += step.size
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(len(text) + 8) % 8)
    return len(text).to_bytes(8, "little") + text


class Writer:
    """Writes shards of one build; safe to use from several threads, each with its own shard."""

    def __init__(self, *, base: Checkpoint, adapters: Sequence[Adapter], tick: Tick, stop: threading.Event) -> None:
        self._base = base
        self._adapters = adapters
        self._entries = base.entries
        self._tick = tick
        self._stop = stop

    def write(self, shard: ShardPlan, *, target: Path) -> dict[str, StepFigures]:
        """Writes a whole file, on the disk when this returns; figures by merged tensor."""
        head = output_header(shard, self._base.shards[shard.file])
        figures: dict[str, StepFigures] = {}
        output = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        sources: dict[str, int] = {}
        try:
            os.fchmod(output, 0o644)
            _reserve(output, len(head) + shard.data_bytes, target=target)
            os.pwrite(output, head, 0)
            for name in {self._base.file_of[step.source] for step in shard.steps if step.source}:
                sources[name] = os.open(self._base.shards[name].path, os.O_RDONLY | os.O_CLOEXEC)
            position = len(head)
            for step in shard.steps:
                found = self._write_step(step, output=output, position=position, sources=sources)
                if found is not None:
                    figures[step.name] = found
                position += step.size
        finally:
            for descriptor in (output, *sources.values()):
                os.close(descriptor)
        return figures

    def _origin(self, step: Step, sources: dict[str, int]) -> tuple[Header, Entry, int]:
        if step.source is None:
            raise AssertionError(f"{step.name} has no base tensor")
        file = self._base.file_of[step.source]
        return self._base.shards[file], self._entries[step.source], sources[file]

    def _write_step(self, step: Step, *, output: int, position: int, sources: dict[str, int]) -> StepFigures | None:
        header, entry, source = self._origin(step, sources)
        begin = header.data_start + entry.begin
        if step.is_plain_copy:
            self._copy(source, begin, output, position, step.size)
            return None
        rows = _Stream(step, source=source, begin=begin, output=output, position=position, where=str(header.path))
        if not step.terms:
            self._convert(step, rows)
            return None
        return self._merge(step, rows)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Terminated(Reason.TERMINATED, "stopped while merging; nothing was published")

    def _copy(self, source: int, begin: int, output: int, position: int, size: int) -> None:
        done = 0
        while done < size:
            self._check()
            count = _copy_range(source, begin + done, output, position + done, min(COPY_BYTES, size - done))
            done += count
            self._tick(count)

    def _convert(self, step: Step, stream: "_Stream") -> None:
        for start, end in chunks(step.shape, item=DTYPE_BYTES[step.source_dtype]):
            self._check()
            result = stream.read(start, end).to(TORCH[step.dtype])
            if not bool(torch.isfinite(result).all()):
                raise _not_finite(step)
            stream.write(start, result)
            self._tick(result.numel() * result.element_size())

    def _merge(self, step: Step, stream: "_Stream") -> StepFigures:
        dtype = working_dtype(step.dtype)
        factors = load_low_rank(step.terms, self._adapters, dtype=dtype)
        work = _Work(dtype)
        moved = lost = 0.0
        for start, end in chunks(step.shape, item=DTYPE_BYTES[step.source_dtype]):
            self._check()
            result, chunk_moved, chunk_lost = work.merge(
                stream.read(start, end), factors, start, end, TORCH[step.dtype]
            )
            stream.write(start, result)
            moved += chunk_moved
            lost += chunk_lost
            self._tick(result.numel() * result.element_size())
        if not (moved < float("inf") and lost < float("inf")):
            raise _not_finite(step)
        return StepFigures(delta=factors.norm(), moved=moved**0.5, lost=lost**0.5)


def _not_finite(step: Step) -> Refused:
    return Refused(
        Reason.NOT_FINITE,
        f"tensor {step.name}: the result holds NaN or Inf in {TORCH[step.dtype]}; "
        "choose --dtype bfloat16 or float32 if its range is too small, otherwise base or adapter is damaged",
    )


class _Work:
    """The buffers of one tensor: allocated once per shape, because fresh pages cost more than the arithmetic."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._wide = torch.empty(0, dtype=dtype)
        self._sum = torch.empty(0, dtype=dtype)

    def merge(
        self, stored: torch.Tensor, factors: LowRank, start: int, end: int, output: torch.dtype
    ) -> tuple[torch.Tensor, float, float]:
        """(W' as stored, ‖W'−W‖², ‖W'−(W+Δ)‖²) of a chunk."""
        if self._wide.shape != stored.shape:
            self._wide = torch.empty(stored.shape, dtype=self._dtype)
            self._sum = torch.empty(stored.shape, dtype=self._dtype)
        wide, total = self._wide, self._sum
        wide.copy_(stored)
        torch.addmm(wide, factors.left[start:end], factors.right, out=total)
        result = total.to(output)
        total.sub_(result)
        wide.sub_(result)
        return result, _square(wide), _square(total)


def _square(values: torch.Tensor) -> float:
    flat = values.view(-1)
    return float(torch.dot(flat, flat))


class _Stream:
    """Rows of one tensor, from the base's file and to the output's."""

    def __init__(self, step: Step, *, source: int, begin: int, output: int, position: int, where: str) -> None:
        self._columns = matrix_shape(step.shape)[1]
        self._source_dtype = TORCH[step.source_dtype]
        self._source_row = self._columns * DTYPE_BYTES[step.source_dtype]
        self._output_row = self._columns * DTYPE_BYTES[step.dtype]
        self._source, self._begin = source, begin
        self._output, self._position = output, position
        self._where = where
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def read(self, start: int, end: int) -> torch.Tensor:
        """Valid until the next read."""
        size = (end - start) * self._source_row
        if self._buffer.numel() < size:
            self._buffer = torch.empty(size, dtype=torch.uint8)
        part = self._buffer[:size]
        view = memoryview(part.numpy())  # type: ignore[arg-type]
        read_into(self._source, view, offset=self._begin + start * self._source_row, where=self._where)
        return part.view(self._source_dtype).view(end - start, self._columns)

    def write(self, start: int, rows: torch.Tensor) -> None:
        view = memoryview(rows.contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        write_at(self._output, view, offset=self._position + start * self._output_row)


def write_at(descriptor: int, view: memoryview, *, offset: int) -> None:
    """All of `view`, however little the kernel takes at once."""
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def _copy_range(source: int, begin: int, output: int, position: int, size: int) -> int:
    """Bytes copied, in the kernel where it can (it shares blocks on file systems that have reflinks)."""
    try:
        count = os.copy_file_range(source, output, size, begin, position)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:
            raise
        block = os.pread(source, min(size, CHUNK_BYTES), begin)
        write_at(output, memoryview(block), offset=position)
        count = len(block)
    if count == 0:
        raise Infrastructure(Reason.SOURCE_CHANGED, "a file of the base became shorter while it was being copied")
    return count


def _reserve(output: int, size: int, *, target: Path) -> None:
    """Full disks are told before the work, not after it."""
    try:
        os.posix_fallocate(output, 0, size)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            status = os.fstatvfs(output)
            raise Infrastructure(
                Reason.NO_SPACE,
                f"{target}: needs {size} bytes, {status.f_bavail * status.f_frsize} are free; make room and run again",
            ) from None
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise
        os.ftruncate(output, size)

"""Writes one shard: untouched ranges are copied by the kernel, everything else is streamed in chunks of rows.

    same bytes ─► copy_file_range        the rest ─► 1 MiB of rows, calculated, rounded once, pwrite

What a row's numbers are is operations' business, how they are stored is encode's. Memory is the factors of one tensor and a few
chunks per worker, whatever the model's size; float32 output is calculated in float64.
"""

import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from lora_job.merge.blocks import Blocks
from lora_job.merge.encode import Piece, begin
from lora_job.merge.factors import Deltas
from lora_job.merge.figures import StepFigures, Sums
from lora_job.merge.lanes import in_lanes
from lora_job.merge.layout import Layout, layout_of
from lora_job.merge.operations import LoadDelta, calculate, working_dtype
from lora_job.merge.plan import ShardPlan, Step
from lora_job.merge.rounded_sum import RoundedSum
from lora_job.merge.strategies.load import load_delta
from lora_job.merge.stream import CHUNK_BYTES, Place, Sources, chunks, matrix_shape, write_at
from lora_job.merge.writeback import begin_writeback
from lora_job.outcome import Infrastructure, Terminated
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_BYTES, Checkpoint

__all__ = ["Watch", "Watched", "Writer", "reserve"]

COPY_BYTES = 64 * 2**20
Tick = Callable[[int], None]


class Watch(Protocol):
    """Looks at one tensor while it is written, in the thread that writes it: its bytes are still in the processor's cache."""

    def rows(self, end: int) -> None:
        """The rows before `end` are in the file."""

    def whole(self, figures: StepFigures | None) -> None:
        """All of it is."""


Watched = Callable[[Step], AbstractContextManager[Watch]]


class _Nobody:
    """Looks at nothing."""

    def rows(self, end: int) -> None:
        """Not asked."""

    def whole(self, figures: StepFigures | None) -> None:
        """Not asked."""


def _unwatched(_step: Step) -> AbstractContextManager[Watch]:
    return nullcontext(_Nobody())


class Writer:
    """Writes shards of one build; safe to use from several threads, each with its own shard.

    `lanes` is how many tensors of a shard are written at a time.
    """

    def __init__(
        self,
        *,
        base: Checkpoint,
        deltas: Deltas,
        lanes: int,
        tick: Tick,
        stop: threading.Event,
        blocks: Blocks,
        load: LoadDelta = load_delta,
    ) -> None:
        """`load`: how deltas are made ready to add."""
        self._base = base
        self._deltas = deltas
        self._lanes = lanes
        self._tick = tick
        self._stop = stop
        self._blocks = blocks
        self._load = load

    def write(self, shard: ShardPlan, *, target: Path, watched: Watched = _unwatched) -> dict[str, StepFigures]:
        """Writes a whole file that `reserve` made, each tensor `watched`; figures by merged tensor."""
        layout = layout_of(shard, self._base.shards[shard.file])
        output = os.open(target, os.O_RDWR | os.O_CLOEXEC)
        try:
            work = partial(self._write_step, output=output, layout=layout, watched=watched)
            found = in_lanes(work, shard.steps, lanes=self._lanes, stop=self._stop)
        finally:
            os.close(output)
        return {step.name: one for step, one in zip(shard.steps, found, strict=True) if one is not None}

    def _write_step(self, step: Step, *, output: int, layout: Layout, watched: Watched) -> StepFigures | None:
        adapters = self._deltas.adapters
        with watched(step) as watch:
            with self._blocks.lent() as take, Sources(base=self._base, adapters=adapters, take=take) as sources:
                figures = self._written(step, output=output, layout=layout, sources=sources, watch=watch)
            for stored in step.stored:
                begin_writeback(output, layout.places[stored.name], stored.size)
            watch.whole(figures)
        return figures

    def _written(
        self, step: Step, *, output: int, layout: Layout, sources: Sources, watch: Watch
    ) -> StepFigures | None:
        if step.is_plain_copy:
            self._copy(sources.origin(step), output, layout.places[step.name], step.size)
            return None
        calculation = calculate(step, sources=sources, deltas=self._deltas, dtype=working_dtype(step), load=self._load)
        sink, columns = _Sink(output, layout), matrix_shape(step.shape)[1]
        compiled = RoundedSum.of(step, calculation)
        if compiled is not None:
            for start, end in chunks(step.shape, item=DTYPE_BYTES[step.dtype]):
                self._check()
                self._tick(sink.put(Piece(tensor=step.name, values=compiled.rows(start, end), start=start * columns)))
                watch.rows(end)
            return compiled.figures()
        encoding = begin(step)
        sums = None if step.encoding else Sums(step, delta=calculation.change_norm())
        for start, end in chunks(step.shape, item=DTYPE_BYTES[step.source_dtype], multiple=encoding.row_multiple):
            self._check()
            calculated = calculation.rows(start, end)
            for piece in encoding.feed(calculated.after, start=start):
                self._tick(sink.put(piece))
                if sums is not None:
                    sums.add(calculated, piece.values, place=piece.start - start * columns)
        for piece in encoding.finish():
            self._tick(sink.put(piece))
        return None if sums is None else sums.figures()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Terminated(Reason.TERMINATED, "stopped while merging; nothing was published")

    def _copy(self, source: Place, output: int, position: int, size: int) -> None:
        done = 0
        while done < size:
            self._check()
            count = _copy_range(
                source.descriptor, source.begin + done, output, position + done, min(COPY_BYTES, size - done)
            )
            done += count
            self._tick(count)


class _Sink:
    """Pieces of stored tensors to their places in the file."""

    def __init__(self, output: int, layout: Layout) -> None:
        self._output, self._layout = output, layout

    def put(self, piece: Piece) -> int:
        """The bytes written."""
        values = piece.values
        view = memoryview(values.contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        write_at(self._output, view, offset=self._layout.places[piece.tensor] + piece.start * values.element_size())
        return len(view)


def _copy_range(source: int, begin: int, output: int, position: int, size: int) -> int:
    """Bytes copied, in the kernel where it can (it shares blocks on file systems that have reflinks)."""
    try:
        count = os.copy_file_range(source, output, size, begin, position)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:
            raise
        count = 0
    if count == 0:
        # Some kernels copy nothing from file systems that make their files up while they are read: only a read tells the end.
        block = os.pread(source, min(size, CHUNK_BYTES), begin)
        write_at(output, memoryview(block), offset=position)
        count = len(block)
    if count == 0:
        raise Infrastructure(Reason.SOURCE_CHANGED, "a source file became shorter while it was being copied")
    return count


def reserve(shards: Sequence[ShardPlan], *, base: Checkpoint, directory: Path) -> None:
    """Files of the right size for all shards, with their headers: a disk that is too small is told before the work, not at its end."""
    layouts = {shard.file: layout_of(shard, base.shards[shard.file]) for shard in shards}
    status = os.statvfs(directory)
    needed, free = sum(layout.size for layout in layouts.values()), status.f_bavail * status.f_frsize
    if needed > free:
        raise _no_space(directory, f"needs {needed} bytes, {free} are free")
    for name, layout in layouts.items():
        output = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(output, 0o644)
            _allocate(output, layout.size)
            write_at(output, memoryview(layout.head), offset=0)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise _no_space(directory / name, f"needs {layout.size} bytes: {error.strerror}") from None
            raise
        finally:
            os.close(output)


def _no_space(place: Path, what: str) -> Infrastructure:
    return Infrastructure(Reason.NO_SPACE, f"{place}: {what}; make room and run again")


def _allocate(output: int, size: int) -> None:
    if size == 0:
        return
    try:
        os.posix_fallocate(output, 0, size)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise
        os.ftruncate(output, size)

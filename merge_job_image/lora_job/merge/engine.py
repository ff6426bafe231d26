"""Writes one shard: untouched ranges are copied by the kernel, everything else is streamed in chunks of rows.

    same bytes       copy_file_range
    W + Δ            rounded_sum.py: 1 MiB of rows at a time, by compiled code
    all the rest     calculated.py: the same by torch, which is loaded when a merge has such a tensor

Memory is the factors of one tensor and a few chunks per worker, whatever the model's size.
"""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

from lora_job.merge.build_context import BuildContext
from lora_job.merge.device import CPU
from lora_job.merge.figures import StepFigures
from lora_job.merge.layout import Layout, layout_of
from lora_job.merge.plan import ShardPlan, Step
from lora_job.merge.rounded_sum import RoundedSum, is_rounded_sum
from lora_job.merge.stream import CHUNK_BYTES, Place, Sources, chunks, matrix_shape, write_at
from lora_job.outcome import Infrastructure
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_BYTES, Checkpoint

__all__ = ["Watch", "Watched", "Writer", "reserve"]


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
    """Writes shards of one build; safe to use from several threads, each with its own shard."""

    def __init__(self, build: BuildContext, *, device: str = CPU) -> None:
        """`device`: where products are calculated."""
        self._build = build
        self._device = device

    def write(self, shard: ShardPlan, *, target: Path, watched: Watched = _unwatched) -> dict[str, StepFigures]:
        """Writes a whole file that `reserve` made, each tensor `watched`; figures by merged tensor."""
        build, layout = self._build, layout_of(shard, self._build.base.shards[shard.file])
        output = os.open(target, os.O_RDWR | os.O_CLOEXEC)
        try:
            work = partial(self._write_step, output=output, layout=layout, watched=watched)
            found = build.each_tensor(work, shard)
        finally:
            os.close(output)
        return {step.name: one for step, one in zip(shard.steps, found, strict=True) if one is not None}

    def _write_step(self, step: Step, *, output: int, layout: Layout, watched: Watched) -> StepFigures | None:
        with watched(step) as watch:
            with self._build.sources() as sources:
                figures = self._written(step, output=output, layout=layout, sources=sources, watch=watch)
            for stored in step.stored:
                self._build.writeback.begin(output, layout.places[stored.name], stored.size)
            watch.whole(figures)
        return figures

    def _written(
        self, step: Step, *, output: int, layout: Layout, sources: Sources, watch: Watch
    ) -> StepFigures | None:
        row = matrix_shape(step.shape)[1] * DTYPE_BYTES[step.dtype]
        if step.is_plain_copy:
            source, place = sources.origin(step), layout.places[step.name]
            for start, end in chunks(step.shape, item=DTYPE_BYTES[step.dtype]):
                self._copy(source, start * row, output, place + start * row, (end - start) * row)
                watch.rows(end)
            return None
        sink, build = _Sink(output, layout), self._build
        if self._device != CPU or not is_rounded_sum(step):
            from lora_job.merge.calculated import write_calculated  # noqa: PLC0415 (torch, where a merge needs it)

            return write_calculated(
                step, sources=sources, deltas=build.deltas, device=self._device, put=sink.put, check=build.check
            )
        compiled = RoundedSum(step, sources=sources, deltas=build.deltas)
        for start, end in chunks(step.shape, item=DTYPE_BYTES[step.dtype]):
            build.check()
            sink.put(step.name, start * row, compiled.rows(start, end).data.cast("B"))
            watch.rows(end)
        return compiled.figures()

    def _copy(self, source: Place, begin: int, output: int, position: int, size: int) -> None:
        done = 0
        while done < size:
            self._build.check()
            count = _copy_range(source.descriptor, source.begin + begin + done, output, position + done, size - done)
            done += count


class _Sink:
    """Runs of bytes of stored tensors to their places in the file."""

    def __init__(self, output: int, layout: Layout) -> None:
        self._output, self._layout = output, layout

    def put(self, tensor: str, begin: int, view: memoryview) -> None:
        """Bytes of a tensor, from its byte `begin` on."""
        write_at(self._output, view, offset=self._layout.places[tensor] + begin)


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

"""Rows of tensors from files and to files: what every operation reads through and every result leaves through.

A tensor is a matrix here: rows are all its dimensions but the last. Chunks follow from a tensor's shape alone, so the bytes do not
depend on the number of workers.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from lora_job.merge.adapter import Adapter
from lora_job.merge.blocks import Take, fresh
from lora_job.merge.plan import Step
from lora_job.merge.stored_numbers import Bits, Bytes
from lora_job.outcome import Infrastructure
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_BYTES, Checkpoint, Entry, Header

__all__ = [
    "CHUNK_BYTES",
    "OpenFiles",
    "Place",
    "Reader",
    "Sources",
    "chunks",
    "matrix_shape",
    "read_into",
    "write_at",
]

CHUNK_BYTES = 2**20


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns; a vector is a column, a scalar one element."""
    if not shape:
        return 1, 1
    return (prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (shape[0], 1)


def chunks(shape: Sequence[int], *, item: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about 1 MiB, each but the last of a `multiple` of rows."""
    rows, columns = matrix_shape(shape)
    step = max(1, CHUNK_BYTES // max(1, columns * item))
    step = -(-step // multiple) * multiple
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def read_into(descriptor: int, view: memoryview, *, offset: int, where: str) -> None:
    """Fill `view` from a file; a file that became shorter is an error of the surroundings."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise Infrastructure(Reason.SOURCE_CHANGED, f"{where} became shorter while it was being read")
        done += count


def write_at(descriptor: int, view: memoryview, *, offset: int) -> None:
    """All of `view`, however little the kernel takes at once."""
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor's bytes begin in an open file."""

    descriptor: int
    begin: int
    where: str


class OpenFiles:
    """Files by path, each opened once for reading; safe from any thread."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def place(self, header: Header, entry: Entry) -> Place:
        """Where a tensor is."""
        with self._lock:
            if header.path not in self._open:
                self._open[header.path] = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC)
            descriptor = self._open[header.path]
        return Place(descriptor=descriptor, begin=header.data_start + entry.begin, where=str(header.path))

    def reader(self, header: Header, entry: Entry, *, take: Take = fresh) -> "Reader":
        """Rows of a tensor; `take`: where the memory comes from that they are read into."""
        columns = matrix_shape(entry.shape)[1]
        return Reader(self.place(header, entry), columns=columns, dtype=entry.dtype, take=take)

    def read(self, header: Header, entry: Entry, *, start: int = 0, end: int | None = None) -> Bytes:
        """A (small) tensor's bytes; with `start` and `end` only these of its first dimension."""
        row = prod(entry.shape[1:]) * DTYPE_BYTES[entry.dtype]
        begin, size = (0, entry.size) if end is None else (start * row, (end - start) * row)
        data, place = np.empty(size, dtype=np.uint8), self.place(header, entry)
        read_into(place.descriptor, data.data, offset=place.begin + begin, where=place.where)
        return data


class Sources:
    """Base and adapters, for one tensor at a time; `take`: as OpenFiles.reader."""

    def __init__(self, *, base: Checkpoint, adapters: Sequence[Adapter], files: OpenFiles, take: Take = fresh) -> None:
        self._base = base
        self._adapters = adapters
        self._files = files
        self.take = take

    def _found(self, step: Step) -> tuple[Header, Entry]:
        """What a step's values start from: an adapter's whole tensor where it has one, otherwise the base's."""
        if step.replacement is not None:
            header = self._adapters[step.replacement.adapter].header
            return header, header.by_name[step.replacement.key]
        if step.source is None:
            raise AssertionError(f"{step.name} starts from nothing")
        header = self._base.shards[self._base.file_of[step.source]]
        return header, header.by_name[step.source]

    def origin(self, step: Step) -> Place:
        """Where the tensor is that a step starts from."""
        return self._files.place(*self._found(step))

    def origin_rows(self, step: Step) -> "Reader":
        """Its rows."""
        return self._files.reader(*self._found(step), take=self.take)


class Reader:
    """Rows of one tensor of a file."""

    def __init__(self, place: Place, *, columns: int, dtype: str, take: Take) -> None:
        self._place = place
        self._take = take
        self.columns = columns
        self.dtype = dtype
        self._row = columns * DTYPE_BYTES[dtype]
        self._buffer = np.empty(0, dtype=np.uint8)

    def data(self, start: int, end: int) -> Bytes:
        """Bytes of some rows; valid until the next read."""
        size = (end - start) * self._row
        if len(self._buffer) < size:
            self._buffer = self._take(size)
        part = self._buffer[:size]
        read_into(
            self._place.descriptor, part.data, offset=self._place.begin + start * self._row, where=self._place.where
        )
        return part

    def halves(self, start: int, end: int) -> Bits:
        """Some rows of 16-bit numbers, [rows, columns]; valid until the next read."""
        return self.data(start, end).view(np.uint16).reshape(end - start, self.columns)

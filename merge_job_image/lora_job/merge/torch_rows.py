"""Tensors of files for torch: the memory that stream.py reads into, looked at as torch looks at it. Nothing is copied."""

import torch

from lora_job.merge.rounding import TORCH
from lora_job.merge.stream import OpenFiles, Reader
from lora_job.tensors import Entry, Header

__all__ = ["read_rows", "read_tensor"]


def read_rows(reader: Reader, start: int, end: int) -> torch.Tensor:
    """Numbers of some rows, [rows, columns]; valid until the next read."""
    return torch.from_numpy(reader.data(start, end)).view(TORCH[reader.dtype]).view(end - start, reader.columns)


def read_tensor(files: OpenFiles, header: Header, entry: Entry) -> torch.Tensor:
    """A (small) tensor as stored."""
    return torch.from_numpy(files.read(header, entry)).view(TORCH[entry.dtype]).view(entry.shape)

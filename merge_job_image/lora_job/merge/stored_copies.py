"""Frozen weights that an adapter carries along: PEFT stores the whole embedding or head beside its factors.

The copy is what the adapter was trained on, so it must be the base's: where it is not, the merge would be another model's. A copy with
another number of tokens takes the base's place instead (changes.py) and is not compared.
"""

import numpy as np

from lora_job.merge.adapter import Adapter, Part
from lora_job.merge.stored_numbers import Floats, as_numbers, as_stored, quiet, round_once
from lora_job.merge.stream import OpenFiles, Reader, chunks
from lora_job.merge.targets import Targets
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_BYTES, FLOATS, Entry

__all__ = ["check_stored_copies"]


def check_stored_copies(adapter: Adapter, *, targets: Targets) -> None:
    """Refuses an adapter whose copy of a base's tensor holds other numbers."""
    for module, parts in adapter.modules.items():
        copy = parts.get(Part.BASE_WEIGHT)
        name = None if copy is None else targets.find(module, "weight")
        if copy is None or name is None:
            continue
        origin = targets.origin(name)
        if origin.shape == copy.shape and origin.dtype in FLOATS and not _same(adapter, copy, origin, targets=targets):
            raise Refused(
                Reason.WRONG_BASE,
                f"{adapter.where}: tensor {copy.name!r} is the weight that the adapter was trained on, and the base's {origin.name} "
                "holds other numbers; merge into the base that the adapter was trained on",
            )


def _same(adapter: Adapter, copy: Entry, origin: Entry, *, targets: Targets) -> bool:
    """As numbers in the copy's dtype: training may have loaded the base in another one than the disk has."""
    header = targets.base.shards[targets.base.file_of[origin.name]]
    item = max(DTYPE_BYTES[copy.dtype], DTYPE_BYTES[origin.dtype])
    with OpenFiles() as files:
        ours, theirs = files.reader(header, origin), files.reader(adapter.header, copy)
        return all(
            np.array_equal(_rounded(ours, start, end, dtype=copy.dtype), _numbers(theirs, start, end))
            for start, end in chunks(origin.shape, item=item)
        )


def _numbers(reader: Reader, start: int, end: int) -> Floats:
    return as_numbers(as_stored(reader.data(start, end), reader.dtype), reader.dtype)


@quiet
def _rounded(reader: Reader, start: int, end: int, *, dtype: str) -> Floats:
    return as_numbers(round_once(_numbers(reader, start, end).astype(np.float64), dtype), dtype)

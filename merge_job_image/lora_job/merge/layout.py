"""Where every tensor lies in an output file: the base's own header where nothing but numbers changes, otherwise a new one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from lora_job.merge.plan import ShardPlan, Stored
from lora_job.tensors import DTYPE_BYTES, Header

__all__ = ["Layout", "layout_of"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A file before it is written."""

    head: bytes
    """Everything before the data."""
    places: Mapping[str, int]
    """Offset in the file, by stored tensor."""
    size: int

    @property
    def spans(self) -> list[tuple[str, int]]:
        """(stored tensor, bytes) in the order of the file; the header's name is ""."""
        begins = [*self.places.values(), self.size]
        return [
            ("", begins[0]),
            *((name, end - begin) for name, (begin, end) in zip(self.places, pairwise(begins), strict=True)),
        ]


def layout_of(shard: ShardPlan, base: Header) -> Layout:
    """The layout of one shard; `base`: the header of the base's file of that name."""
    planned = [one for step in shard.steps for one in step.stored]
    same = [(one.name, one.dtype, one.shape) for one in planned] == [
        (entry.name, entry.dtype, entry.shape) for entry in base.entries
    ]
    # Readers map files and need numbers at multiples of their size: the widest come first, as safetensors itself writes them.
    stored = planned if same else sorted(planned, key=lambda one: -DTYPE_BYTES[one.dtype])
    head = base.raw if same else _header(stored, metadata=base.metadata)
    places, position = {}, len(head)
    for one in stored:
        places[one.name] = position
        position += one.size
    return Layout(head=head, places=places, size=position)


def _header(stored: list[Stored], *, metadata: Mapping[str, str]) -> bytes:
    content: dict[str, object] = {"__metadata__": dict(metadata) or {"format": "pt"}}
    position = 0
    for one in stored:
        content[one.name] = {
            "dtype": one.dtype,
            "shape": list(one.shape),
            "data_offsets": [position, position + one.size],
        }
        position += one.size
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(len(text) + 8) % 8)
    return len(text).to_bytes(8, "little") + text

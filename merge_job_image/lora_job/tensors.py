"""Safetensors headers and checkpoint layouts, read strictly: everything that two readers could understand differently is refused.

Own parser, because the library maps whole files and accepts what we must not; 8 bytes little-endian length, JSON, then data without holes.
Never reads a weight and never imports torch.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from lora_job.files import check_regular, inside
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.strict_json import parse_object, read_object

__all__ = [
    "DTYPE_BYTES",
    "DTYPE_NAMES",
    "FLOATS",
    "PICKLES",
    "Checkpoint",
    "Entry",
    "Header",
    "read_checkpoint",
    "read_header",
]

HEADER_LIMIT = 64 * 2**20
NAME_LIMIT = 1_000
"""Characters; the longest names of published models have about 120."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPE_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
DTYPE_NAMES: Mapping[str, str] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
"""Of floats, as people and --dtype write them."""
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of a header; begin and end are offsets into the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, kw_only=True)
class Header:
    """A file's description. `raw` is everything before the data, byte for byte."""

    path: Path
    raw: bytes
    entries: tuple[Entry, ...]
    """In the order of their data."""
    metadata: Mapping[str, str]

    @property
    def data_start(self) -> int:
        return len(self.raw)

    @cached_property
    def by_name(self) -> Mapping[str, Entry]:
        return {entry.name: entry for entry in self.entries}

    @property
    def file_size(self) -> int:
        return len(self.raw) + (self.entries[-1].end if self.entries else 0)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model's weights: its files in order, and where each tensor is."""

    root: Path
    shards: Mapping[str, Header]
    """By file name."""
    file_of: Mapping[str, str]
    """File name by tensor name."""
    index: Mapping[str, Any] | None
    """The parsed index, None for a single file."""

    def entry(self, name: str) -> Entry:
        return self.shards[self.file_of[name]].by_name[name]

    @property
    def entries(self) -> dict[str, Entry]:
        return {entry.name: entry for header in self.shards.values() for entry in header.entries}

    @property
    def data_bytes(self) -> int:
        return sum(entry.size for header in self.shards.values() for entry in header.entries)


def _malformed(path: Path, what: str) -> Refused:
    return Refused(Reason.MALFORMED_HEADER, f"{path}: {what}; the file is damaged or not safetensors, copy it again")


def _integer(value: object) -> bool:
    """What a file offset can be: safetensors itself reads 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _entry(path: Path, name: str, raw: object) -> Entry:
    if not name or len(name) > NAME_LIMIT:
        raise _malformed(path, f"tensor {name[:40]!r}: expected a name of 1 to {NAME_LIMIT} characters")
    if not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(path, f"tensor {name!r}: expected exactly dtype, shape and data_offsets")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise Refused(
            Reason.UNKNOWN_DTYPE,
            f"{path}: tensor {name!r}: dtype {dtype!r} is not known; expected {', '.join(DTYPE_BYTES)}",
        )
    if not isinstance(shape, list) or len(shape) > 8 or not all(_integer(size) for size in shape):
        raise _malformed(path, f"tensor {name!r}: shape: expected at most 8 whole numbers of at least 0")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_integer(offset) for offset in offsets):
        raise _malformed(path, f"tensor {name!r}: data_offsets: expected two whole numbers of at least 0")
    begin, end = offsets
    expected = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - begin != expected:
        raise _malformed(
            path, f"tensor {name!r}: shape {shape} of {dtype} needs {expected} bytes, its range has {end - begin}"
        )
    return Entry(name=name, dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _metadata(path: Path, raw: object) -> Mapping[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise _malformed(path, "__metadata__: expected an object of strings")
    return raw


def _check_coverage(path: Path, entries: tuple[Entry, ...], *, data: int) -> None:
    """No hole, no overlap, no byte left over: a byte that no tensor owns could hide anything."""
    if entries and entries[0].begin != 0:
        raise _malformed(path, f"tensor {entries[0].name!r} starts at {entries[0].begin}, expected 0")
    for left, right in pairwise(entries):
        if right.begin != left.end:
            problem = "overlap" if right.begin < left.end else "leave a hole"
            raise _malformed(path, f"tensors {left.name!r} and {right.name!r} {problem} at byte {left.end}")
    needed = entries[-1].end if entries else 0
    if data < needed:
        raise Refused(
            Reason.TRUNCATED_FILE,
            f"{path}: its header promises {needed} bytes of data, found {data}; copy the file again",
        )
    if data > needed:
        raise _malformed(path, f"{data - needed} bytes follow the last tensor")


def read_header(path: Path) -> Header:
    """A file's header, or a refusal that names file, tensor and fault."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:
                raise Refused(
                    Reason.TRUNCATED_FILE, f"{path}: {size} bytes is too short for safetensors; copy the file again"
                )
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if length > HEADER_LIMIT:
                raise _malformed(path, f"its header would be {length} bytes, expected at most {HEADER_LIMIT}")
            if length > size - 8:
                raise Refused(
                    Reason.TRUNCATED_FILE,
                    f"{path}: its header needs {length} bytes, the file has {size - 8}; copy the file again",
                )
            text = file.read(length)
    except OSError as error:
        raise Refused(Reason.SOURCE_NOT_READABLE, f"{path}: cannot be read: {error.strerror}") from None
    if not text.startswith(b"{"):
        raise _malformed(path, "its header does not start with '{'")
    raw = parse_object(text, where=f"{path}: header", reason=Reason.MALFORMED_HEADER)
    metadata = _metadata(path, raw.pop("__metadata__", {}))
    entries = tuple(sorted((_entry(path, name, value) for name, value in raw.items()), key=lambda e: (e.begin, e.end)))
    _check_coverage(path, entries, data=size - 8 - length)
    return Header(path=path, raw=prefix + text, entries=entries, metadata=metadata)


def _shard_names(path: Path, index: Mapping[str, Any]) -> dict[str, str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Refused(
            Reason.MALFORMED_INDEX, f"{path}: field 'weight_map': expected an object of tensor names, found none"
        )
    if not isinstance(index.get("metadata") or {}, dict):
        raise Refused(
            Reason.MALFORMED_INDEX, f"{path}: field 'metadata': expected an object, found {index['metadata']!r}"
        )
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not name or "/" in name or "\\" in name or name in {".", ".."} or "\0" in name:
            raise Refused(
                Reason.MALFORMED_INDEX,
                f"{path}: tensor {tensor!r}: expected the name of a file beside it, found {name!r}",
            )
        if not name.endswith(".safetensors"):
            raise Refused(Reason.PICKLES_ONLY, f"{path}: tensor {tensor!r} is in {name}: expected a .safetensors file")
    return dict(weight_map)


def _read_shard(root: Path, name: str) -> Header:
    path = root / name
    if not path.exists() and not path.is_symlink():
        raise Refused(Reason.MISSING_SHARD, f"{path}: the index names this shard and it is not there; copy it too")
    inside(path, root=root)
    return read_header(path)


def _check_index(path: Path, weight_map: Mapping[str, str], shards: Mapping[str, Header]) -> None:
    found: dict[str, str] = {}
    for name, header in shards.items():
        for entry in header.entries:
            if entry.name in found:
                raise Refused(
                    Reason.MALFORMED_INDEX, f"{path}: tensor {entry.name!r} is in both {found[entry.name]} and {name}"
                )
            found[entry.name] = name
    for tensor, name in weight_map.items():
        if found.get(tensor) != name:
            raise Refused(
                Reason.MALFORMED_INDEX,
                f"{path}: tensor {tensor!r} should be in {name}, found in {found.get(tensor, 'no shard')}",
            )
    extra = sorted(set(found) - set(weight_map))
    if extra:
        raise Refused(
            Reason.MALFORMED_INDEX, f"{path}: tensor {extra[0]!r} is in {found[extra[0]]} but not in the index"
        )


def _no_weights(root: Path) -> Refused:
    pickles = sorted(path.name for path in root.iterdir() if path.name.endswith(PICKLES))
    if pickles:
        return Refused(
            Reason.PICKLES_ONLY,
            f"{root}: its weights exist only as pickles ({pickles[0]}), which can run code; convert them to safetensors",
        )
    return Refused(
        Reason.NO_WEIGHTS, f"{root}: expected {SINGLE} or {INDEX}, found neither; is this a model directory?"
    )


def read_checkpoint(root: Path) -> Checkpoint:
    """The weights of a model directory."""
    index_path, single = root / INDEX, root / SINGLE
    if not index_path.exists():
        if not single.exists() and not single.is_symlink():
            raise _no_weights(root)
        header = _read_shard(root, SINGLE)
        file_of = {entry.name: SINGLE for entry in header.entries}
        return Checkpoint(root=root, shards={SINGLE: header}, file_of=file_of, index=None)
    inside(index_path, root=root)
    index = read_object(index_path, reason=Reason.MALFORMED_INDEX)
    weight_map = _shard_names(index_path, index)
    names = sorted(set(weight_map.values()))
    if single.exists() and SINGLE not in names:
        raise Refused(
            Reason.AMBIGUOUS_WEIGHTS,
            f"{root}: holds both {SINGLE} and an index of other files; remove the one not meant",
        )
    shards = {name: _read_shard(root, name) for name in names}
    _check_index(index_path, weight_map, shards)
    return Checkpoint(root=root, shards=shards, file_of=weight_map, index=index)

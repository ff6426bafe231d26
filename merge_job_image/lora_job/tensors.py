"""Safetensors headers and checkpoint layouts, read strictly and without torch.

A file that a lenient reader would accept is refused here: duplicate keys, overlaps, holes, wrong sizes, trailing bytes. What is
merged and served must have one meaning only.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lora_job.outcome import Refused

__all__ = ["ITEM_BYTES", "Checkpoint", "Header", "TensorInfo", "read_checkpoint", "read_header"]

MAX_HEADER = 64 << 20
MAX_DEPTH = 4
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8,
    "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: bytes [begin, end) after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """A parsed header; `data` is the file offset of byte 0 of the tensors, `raw` the header's bytes with their length in front."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data: int
    raw: bytes


@dataclass(frozen=True)
class Checkpoint:
    """A model's shards in the index's order of files; each tensor in exactly one."""

    root: Path
    shards: Mapping[str, Header]  # by file name
    has_index: bool

    def shard_of(self, tensor: str) -> str | None:
        """The file that holds a tensor."""
        return next((name for name, header in self.shards.items() if tensor in header.tensors), None)

    def tensors(self) -> dict[str, TensorInfo]:
        """All of them."""
        return {name: info for header in self.shards.values() for name, info in header.tensors.items()}


def read_header(path: Path) -> Header:
    """Parses one file.

    Raises:
        Refused: TruncatedFile or BadSafetensors, naming the file and what is wrong.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        if len(first) < 8:
            raise Refused("TruncatedFile", f"{path}: {size} bytes are too few for a safetensors file; copy it again")
        (length,) = struct.unpack("<Q", first)
        if length > MAX_HEADER:
            raise Refused("BadSafetensors", f"{path}: the header claims {length} bytes, more than {MAX_HEADER}")
        if 8 + length > size:
            raise Refused(
                "TruncatedFile", f"{path}: the header claims {length} bytes, the file has {size}; copy it again"
            )
        body = file.read(length)
    raw = _parse_json(body, path=path)
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Refused("BadSafetensors", f"{path}: __metadata__ must map strings to strings")
    tensors = {name: _tensor(name, entry, path=path) for name, entry in raw.items()}
    _check_layout(list(tensors.values()), data_bytes=size - 8 - length, path=path)
    return Header(path=path, tensors=tensors, metadata=metadata, data=8 + length, raw=first + body)


def read_checkpoint(root: Path) -> Checkpoint:
    """The shards of a model directory, from its index or its single file."""
    if (root / INDEX).exists():
        return _read_sharded(root)
    if (root / SINGLE).exists():
        return Checkpoint(root=root, shards={SINGLE: read_header(root / SINGLE)}, has_index=False)
    pickles = sorted(path.name for path in root.glob("*.bin")) + sorted(path.name for path in root.glob("*.pt*"))
    if pickles:
        raise Refused(
            "OnlyPickles", f"{root}: weights exist only as pickles ({pickles[0]}); convert them to safetensors"
        )
    raise Refused("WeightsNotFound", f"{root}: expected {SINGLE} or {INDEX}")


def _read_sharded(root: Path) -> Checkpoint:
    path = root / INDEX
    index = _parse_json(path.read_bytes(), path=path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Refused("BadIndex", f"{path}: weight_map must name the file of every tensor")
    names = list(dict.fromkeys(weight_map.values()))
    shards = {}
    for name in names:
        if not isinstance(name, str) or PurePosixPath(name).name != name or name in {"", ".", ".."} or "\\" in name:
            raise Refused("BadIndex", f"{path}: {name!r} is not a plain file name")
        if not (root / name).is_file():
            raise Refused("MissingShard", f"{path}: the shard {name} is not there; copy the model again")
        shards[name] = read_header(root / name)
    seen: dict[str, str] = {}
    for name, header in shards.items():
        for tensor in header.tensors:
            if tensor in seen:
                raise Refused("BadIndex", f"{path}: tensor {tensor} is in {seen[tensor]} and in {name}")
            seen[tensor] = name
    for tensor, name in weight_map.items():
        if seen.get(tensor) != name:
            raise Refused(
                "BadIndex", f"{path}: tensor {tensor} should be in {name}, found in {seen.get(tensor, 'no shard')}"
            )
    extra = sorted(set(seen) - set(weight_map))
    if extra:
        raise Refused("BadIndex", f"{path}: tensor {extra[0]} is in {seen[extra[0]]} but not in the index")
    return Checkpoint(root=root, shards=shards, has_index=True)


def _parse_json(body: bytes, *, path: Path) -> dict[str, Any]:
    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            raise Refused("BadSafetensors", f"{path}: a key occurs twice")
        return keys

    text = body.decode("utf-8", errors="replace")
    if _depth(text) > MAX_DEPTH:
        raise Refused("BadSafetensors", f"{path}: nested deeper than {MAX_DEPTH} levels")
    try:
        parsed = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Refused("BadSafetensors", f"{path}: the header is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refused("BadSafetensors", f"{path}: expected a JSON object")
    return parsed


def _depth(text: str) -> int:
    """Nesting of brackets outside of strings, without recursion."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]":
            depth -= 1
    return deepest


def _tensor(name: str, entry: Any, *, path: Path) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Refused("BadSafetensors", f"{path}: tensor {name}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in ITEM_BYTES:
        raise Refused("BadSafetensors", f"{path}: tensor {name}: unknown dtype {dtype!r}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Refused("BadSafetensors", f"{path}: tensor {name}: shape and offsets must be whole numbers in order")
    if math.prod(shape) * ITEM_BYTES[dtype] != offsets[1] - offsets[0]:
        raise Refused(
            "BadSafetensors",
            f"{path}: tensor {name}: shape {shape} of {dtype} does not fill its {offsets[1] - offsets[0]} bytes",
        )
    return TensorInfo(name=name, dtype=dtype, shape=tuple(shape), begin=offsets[0], end=offsets[1])


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**48 for x in value
    )


def _check_layout(tensors: list[TensorInfo], *, data_bytes: int, path: Path) -> None:
    position = 0
    for info in sorted(tensors, key=lambda one: (one.begin, one.end)):
        if info.begin != position:
            problem = "overlaps the one before it" if info.begin < position else "leaves a hole before it"
            raise Refused("BadSafetensors", f"{path}: tensor {info.name} {problem}")
        position = info.end
    if position > data_bytes:
        raise Refused(
            "TruncatedFile",
            f"{path}: the tensors need {position} bytes, the file has {data_bytes} after its header; copy it again",
        )
    if position < data_bytes:
        raise Refused("BadSafetensors", f"{path}: {data_bytes - position} bytes follow the last tensor")

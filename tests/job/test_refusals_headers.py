"""Safetensors headers and indexes that are refused, in the base and in the adapter alike."""
# ruff: noqa: E501 (a row of a table is a line)

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.job.models import shapes
from tests.job.refusing import Place, Row, check_refused, ids, write_raw

pytestmark = pytest.mark.engine

FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
Write = Callable[[Path], object]


def entry(shape: object, begin: object, end: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def one(shape: object, begin: object, end: object, dtype: object = "F32", *, data: int = 8) -> Write:
    return lambda path: write_raw(path, {"t": entry(shape, begin, end, dtype)}, bytes(data))


def text(header: bytes, *, data: int = 0) -> Write:
    return lambda path: write_raw(path, header, bytes(data))


GOOD = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
TWO = {"t": entry([2], 0, 8), "u": entry([2], 8, 16)}
HEADERS: list[tuple[str, str, tuple[str, ...], Write]] = [
    ("an empty file", "TruncatedFile", ("too short",), lambda path: path.write_bytes(b"")),
    ("shorter than the length's eight bytes", "TruncatedFile", ("too short",), lambda path: path.write_bytes(b"\1\0")),
    ("a header longer than the file", "TruncatedFile", ("its header needs 9999",), lambda path: write_raw(path, b"{}", length=9999)),
    ("a header longer than 64 MiB", "MalformedHeader", ("at most 67108864",), lambda path: write_raw(path, b"{}", length=2**27)),
    ("a header of 2^64-1 bytes", "MalformedHeader", ("18446744073709551615",), lambda path: write_raw(path, b"{}", length=2**64 - 1)),
    ("a header that is not JSON", "MalformedHeader", ("expected JSON",), text(b"{nonsense}")),
    ("a header that is not UTF-8", "MalformedHeader", ("UTF-8",), text(b'{"\xff":1}')),
    ("a header that does not start with a brace", "MalformedHeader", ("'{'",), text(b" {}")),
    ("a header that is a list", "MalformedHeader", ("'{'",), text(b"[]")),
    ("text after the header's object", "MalformedHeader", ("Extra data",), text(b"{}{}")),
    ("a tensor named twice", "MalformedHeader", ("'t'", "twice"), text(b'{"t":' + GOOD + b',"t":' + GOOD + b"}", data=8)),
    ("a field named twice", "MalformedHeader", ("'dtype'", "twice"), text(b'{"t":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', data=8)),
    ("nesting without end", "MalformedHeader", ("nesting",), text(b'{"t":' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
    ("half of a surrogate pair as a name", "MalformedHeader", ("surrogate",), text(b'{"\\ud83d":' + GOOD + b"}", data=8)),
    ("a tensor without a name", "MalformedHeader", ("1 to 1000",), text(b'{"":' + GOOD + b"}", data=8)),
    ("an endless name", "MalformedHeader", ("1 to 1000",), text(b'{"' + b"n" * 100_000 + b'":' + GOOD + b"}", data=8)),
    ("two tensors that overlap", "MalformedHeader", ("'t'", "'u'", "overlap"), lambda path: write_raw(path, {"t": entry([2], 0, 8), "u": entry([2], 4, 12)}, bytes(12))),
    ("a hole between two tensors", "MalformedHeader", ("'t'", "'u'", "hole"), lambda path: write_raw(path, {"t": entry([2], 0, 8), "u": entry([2], 9, 17)}, bytes(17))),
    ("data that starts after byte 0", "MalformedHeader", ("'t'", "starts at 4"), one([2], 4, 12, data=12)),
    ("a range beyond the file", "TruncatedFile", ("promises 16", "found 8"), lambda path: write_raw(path, TWO, bytes(8))),
    ("one byte too few", "TruncatedFile", ("promises 16", "found 15"), lambda path: write_raw(path, TWO, bytes(15))),
    ("one byte too many", "MalformedHeader", ("1 bytes follow",), lambda path: write_raw(path, TWO, bytes(17))),
    ("a shape that needs other bytes than its range", "MalformedHeader", ("'t'", "needs 12 bytes, its range has 8"), one([3], 0, 8)),
    ("a range that ends before it starts", "MalformedHeader", ("'t'",), one([2], 8, 0)),
    ("a shape whose product overflows 64 bits", "MalformedHeader", ("'t'", "needs"), one([2**62, 2**62], 0, 8)),
    ("a size of more than 63 bits", "MalformedHeader", ("'t'", "shape"), one([2**64], 0, 8)),
    ("a number of 5000 digits", "MalformedHeader", ("expected JSON",), text(b'{"t":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', data=8)),
    ("a negative size", "MalformedHeader", ("'t'", "shape"), one([-2], 0, 8)),
    ("a fraction as a size", "MalformedHeader", ("'t'", "shape"), one([2.0], 0, 8)),
    ("true as a size", "MalformedHeader", ("'t'", "shape"), one([True], 0, 4)),
    ("minus zero", "MalformedHeader", ("-0",), text(b'{"t":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}')),
    ("NaN instead of a number", "MalformedHeader", ("NaN",), text(b'{"t":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', data=8)),
    ("a negative offset", "MalformedHeader", ("'t'", "data_offsets"), one([2], -8, 0)),
    ("three offsets", "MalformedHeader", ("'t'", "data_offsets"), lambda path: write_raw(path, {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, bytes(8))),
    ("nine dimensions", "MalformedHeader", ("'t'", "shape"), one([1] * 8 + [2], 0, 8)),
    ("a dtype nobody knows", "UnknownDtype", ("'t'", "F4"), one([2], 0, 8, "F4")),
    ("a dtype that is no word", "UnknownDtype", ("'t'", "7"), one([2], 0, 8, 7)),
    ("a tensor with a field of its own", "MalformedHeader", ("'t'", "exactly"), lambda path: write_raw(path, {"t": entry([2], 0, 8) | {"more": 1}}, bytes(8))),
    ("a tensor without a shape", "MalformedHeader", ("'t'", "exactly"), lambda path: write_raw(path, {"t": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8))),
    ("metadata that is not text", "MalformedHeader", ("__metadata__",), lambda path: write_raw(path, {"__metadata__": {"format": 1}})),
    ("a pipe", "NotARegularFile", ("regular file",), lambda path: (path.unlink(), os.mkfifo(path))),
    ("a directory", "NotARegularFile", ("regular file",), lambda path: (path.unlink(), path.mkdir())),
]  # fmt: skip


@pytest.mark.parametrize("where", ["base", "adapter"])
@pytest.mark.parametrize(("title", "reason", "words", "write"), HEADERS, ids=[row[0] for row in HEADERS])
def test_a_file_of_weights_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str], where: str, title: str, reason: str, words: tuple[str, ...], write: Write
) -> None:  # fmt: skip
    path = place.base / FIRST if where == "base" else place.adapter / "adapter_model.safetensors"
    write(path)
    check_refused(place, capsys, reason=reason, words=(path.name, *words))


def change_index(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], object]:
    def harm(place: Place) -> None:
        path = place.base / INDEX
        index = json.loads(path.read_text())
        change(index)
        path.write_text(json.dumps(index))

    return harm


def moved_to(name: object) -> Callable[[Place], object]:
    return change_index(lambda index: index["weight_map"].update({"lm_head.weight": name}))


def link(place: Place, name: str, target: Path | str) -> None:
    (place.base / name).unlink(missing_ok=True)
    (place.base / name).symlink_to(target)


def outside(place: Place, name: str) -> None:
    """The file moves out of the directory and a link takes its place."""
    kept = place.root / "elsewhere"
    kept.mkdir()
    (place.base / name).rename(kept / name)
    link(place, name, kept / name)


def pickles_only(place: Place) -> None:
    for path in place.base.glob("model*"):
        path.unlink()
    (place.base / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def without_weights(place: Place) -> None:
    for path in place.base.glob("model*"):
        path.unlink()


def two_shards_with_one_tensor(place: Place) -> None:
    (place.base / SECOND).write_bytes((place.base / FIRST).read_bytes())


LAYER = "model.layers.0.input_layernorm.weight"
INDEXES = [
    Row(title="a shard above the directory", reason="MalformedIndex", words=(INDEX, "lm_head.weight", "../x"), harm=moved_to("../x.safetensors")),
    Row(title="two dots as a shard", reason="MalformedIndex", words=(INDEX, "lm_head.weight"), harm=moved_to("..")),
    Row(title="an absolute path as a shard", reason="MalformedIndex", words=(INDEX, "/etc/passwd"), harm=moved_to("/etc/passwd")),
    Row(title="a shard in a directory below", reason="MalformedIndex", words=(INDEX, "below/x"), harm=moved_to("below/x.safetensors")),
    Row(title="a Windows path as a shard", reason="MalformedIndex", words=(INDEX, "below"), harm=moved_to("below\\x.safetensors")),
    Row(title="a NUL in a shard's name", reason="MalformedIndex", words=(INDEX, "lm_head.weight"), harm=moved_to("x\0.safetensors")),
    Row(title="no name as a shard", reason="MalformedIndex", words=(INDEX, "lm_head.weight"), harm=moved_to("")),
    Row(title="a number as a shard", reason="MalformedIndex", words=(INDEX, "lm_head.weight"), harm=moved_to(7)),
    Row(title="a pickle as a shard", reason="PicklesOnly", words=(INDEX, "pytorch_model.bin"), harm=moved_to("pytorch_model.bin")),
    Row(title="a shard that is not there", reason="MissingShard", words=("model-00003.safetensors",), harm=moved_to("model-00003.safetensors")),
    Row(title="a shard that was removed", reason="MissingShard", words=(SECOND,), harm=lambda p: (p.base / SECOND).unlink()),
    Row(title="a tensor that is in the index and in no shard", reason="MalformedIndex", words=(INDEX, "ghost.weight", "no shard"), harm=change_index(lambda index: index["weight_map"].update({"ghost.weight": FIRST}))),
    Row(title="a tensor that is in another shard", reason="MalformedIndex", words=(INDEX, "lm_head.weight", FIRST, SECOND), harm=moved_to(SECOND)),
    Row(title="a tensor in two shards", reason="MalformedIndex", words=(INDEX, "both"), harm=two_shards_with_one_tensor),
    Row(title="a tensor that is in a shard and not in the index", reason="MalformedIndex", words=(INDEX, LAYER, "not in the index"), harm=change_index(lambda index: index["weight_map"].pop(LAYER))),
    Row(title="an index without a map", reason="MalformedIndex", words=(INDEX, "weight_map"), harm=change_index(lambda index: index.pop("weight_map"))),
    Row(title="an empty map", reason="MalformedIndex", words=(INDEX, "weight_map"), harm=change_index(lambda index: index["weight_map"].clear())),
    Row(title="metadata that is a list", reason="MalformedIndex", words=(INDEX, "metadata"), harm=change_index(lambda index: index.update(metadata=[1]))),
    Row(title="an index that is not JSON", reason="MalformedIndex", words=(INDEX, "JSON"), harm=lambda p: (p.base / INDEX).write_text("{")),
    Row(title="an index that is a list", reason="MalformedIndex", words=(INDEX, "list"), harm=lambda p: (p.base / INDEX).write_text("[]")),
    Row(title="an index with a key twice", reason="MalformedIndex", words=(INDEX, "twice"), harm=lambda p: (p.base / INDEX).write_text('{"weight_map":{},"weight_map":{}}')),
    Row(title="an index that is a pipe", reason="NotARegularFile", words=(INDEX,), harm=lambda p: ((p.base / INDEX).unlink(), os.mkfifo(p.base / INDEX))),
    Row(title="an index beside a whole model", reason="AmbiguousWeights", words=("model.safetensors",), harm=lambda p: (p.base / "model.safetensors").write_bytes(b"x" * 16)),
    Row(title="a shard that is a link out of the directory", reason="SymlinkEscapes", words=(FIRST,), harm=lambda p: outside(p, FIRST)),
    Row(title="an index that is a link out of the directory", reason="SymlinkEscapes", words=(INDEX,), harm=lambda p: outside(p, INDEX)),
    Row(title="a file nobody needs that is a link out of the directory", reason="SymlinkEscapes", words=("notes.txt",), harm=lambda p: link(p, "notes.txt", "/etc/hostname")),
    Row(title="a link that leads nowhere", reason="SourceNotFound", words=("notes.txt", "nowhere"), harm=lambda p: link(p, "notes.txt", "gone")),
    Row(title="a link that leads to itself", reason="SourceNotReadable", words=("notes.txt",), harm=lambda p: link(p, "notes.txt", "notes.txt")),
    Row(title="a link to the directory above", reason="SymlinkEscapes", words=("again",), harm=lambda p: link(p, "again", ".")),
    Row(title="a socket or pipe among the files", reason="NotARegularFile", words=("pipe",), harm=lambda p: os.mkfifo(p.base / "pipe")),
    Row(title="a file whose name is not UTF-8", reason="InvalidSource", words=("UTF-8",), harm=lambda p: Path(os.fsdecode(os.fsencode(p.base) + b"/bad\xff")).write_text("x")),
    Row(title="directories without end", reason="InvalidSource", words=("deep",), harm=lambda p: (p.base / "/".join("d" * 40)).mkdir(parents=True)),
    Row(title="weights that exist only as pickles", reason="PicklesOnly", words=("pytorch_model.bin",), harm=pickles_only),
    Row(title="no weights at all", reason="NoWeights", words=("model.safetensors",), harm=without_weights),
]  # fmt: skip


@pytest.mark.parametrize("row", INDEXES, ids=ids(INDEXES))
def test_a_base_is_refused(place: Place, capsys: pytest.CaptureFixture[str], row: Row) -> None:
    row.harm(place)
    check_refused(place, capsys, reason=row.reason, words=row.words)


def test_what_a_stranger_calls_a_tensor_does_not_reach_the_terminal(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """An escape sequence, a line break and a direction character would let a file draw on a person's screen."""
    name = "\x1b[2Jq\nlora-job: done\u202e"
    write_raw(place.adapter / "adapter_model.safetensors", {name: entry([2], 0, 4)}, bytes(4))
    check_refused(place, capsys, reason="MalformedHeader", words=("adapter_model.safetensors", "needs 8 bytes"))


def test_the_tables_use_the_tiny_base_as_it_is(place: Place) -> None:
    """A row that harms a tensor of another name would prove nothing."""
    assert LAYER in shapes()
    assert {path.name for path in place.base.iterdir()} == {FIRST, SECOND, INDEX, "config.json"}

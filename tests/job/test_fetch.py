"""`lora-job fetch`: how much room the result needs, whatever it is stored as, compared with what a merge wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_job.cli import run
from lora_job.files import contents
from lora_job.sources.fetch import SIDECARS
from lora_job.tensors import read_checkpoint
from tests.job.refusing import Place

pytestmark = pytest.mark.engine

STORED: list[tuple[str, tuple[str, ...]]] = [
    ("as the base", ()),
    ("in 32 bits", ("--dtype", "float32")),
    ("in four bits", ("--quantization", "bnb-nf4")),
    ("in eight bits", ("--quantization", "fp8-dynamic")),
    ("in 32 bits where it is not quantized", ("--dtype", "float32", "--quantization", "bnb-int8")),
]


def source(place: Place, path: Path, role: str) -> list[str]:
    where = {"claimName": place.root.name, "path": path.relative_to(place.root).as_posix()}
    return ["--source", json.dumps({"name": role, "role": role, "pvc": where})]


def fetched(place: Place, *options: str) -> dict[str, Any]:
    report = place.root / "fetch.json"
    store = place.root / "store"
    store.mkdir(exist_ok=True)
    sources = [*source(place, place.base, "base"), *source(place, place.adapter, "adapter")]
    where = ["--claims", str(place.root.parent), "--output", str(store), "--report", str(report)]
    assert run(["fetch", *sources, *where, *options]) == 0
    figures: dict[str, Any] = json.loads(report.read_text())["figures"]
    return figures


@pytest.mark.parametrize("options", [row[1] for row in STORED], ids=[row[0] for row in STORED])
def test_the_room_asked_for_is_that_of_the_result_and_not_of_the_base(place: Place, options: tuple[str, ...]) -> None:
    assert run([*place.arguments("merge"), *options]) == 0
    base = read_checkpoint(place.base)
    beside = sum(path.stat().st_size for path in place.base.iterdir()) - base.data_bytes
    needed = fetched(place, *options)["neededBytes"]
    assert needed == read_checkpoint(place.output).data_bytes + beside + SIDECARS


def test_an_unknown_format_is_refused_before_anything_is_read(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    sources = source(place, place.base, "base")
    assert run(["fetch", *sources, "--output", str(place.root), "--quantization", "gguf"]) == 2
    assert "gguf" in capsys.readouterr().err


def nothing(_: Path) -> None:
    """The adapter is as it was."""


def a_file(adapter: Path) -> None:
    (adapter.parent / "typo").write_text("x")


def no_config(adapter: Path) -> None:
    (adapter / "adapter_config.json").unlink()


@pytest.mark.parametrize(
    ("harm", "path", "words"),
    [
        pytest.param(nothing, "typo", ("no such directory", "its root holds adapter/, tiny-base/"), id="no such directory"),
        pytest.param(nothing, "adapter/v1/a", ("path 'adapter/v1/a'", "adapter holds adapter_config.json"), id="a directory too deep"),
        pytest.param(a_file, "typo", ("it is a file",), id="a file"),
        pytest.param(no_config, "adapter", ("adapter_config.json is missing", "it holds adapter_model.safetensors"), id="no adapter"),
    ],
)  # fmt: skip
def test_a_source_that_is_not_there_is_told_in_words_of_the_manifest(
    place: Place, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], None], path: str, words: tuple[str, ...]
) -> None:
    """Not by the path of a mount that its author has never seen, and with what is there instead."""
    harm(place.adapter)
    claims, where = place.root.parent, {"claimName": place.root.name, "path": path}
    source = ["--source", json.dumps({"name": "v1", "role": "adapter", "pvc": where})]
    assert run(["fetch", *source, "--claims", str(claims), "--output", str(place.root)]) == 2
    said = capsys.readouterr().err
    assert f"lora-job: SourceNotFound: source v1: claim {place.root.name}, path {path!r}: " in said
    assert str(claims) not in said
    assert all(word in said for word in words), said


def test_a_long_list_of_what_is_there_is_cut(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"v{number}").mkdir()
    assert contents(tmp_path) == "holds v0/, v1/, v2/, v3/, v4/, v5/ and 3 more"
    (tmp_path / "v0").joinpath("a\nb").touch()
    assert contents(tmp_path / "v0") == r"holds 'a\nb'"
    (tmp_path / "v1" / ".cache").mkdir()
    assert contents(tmp_path / "v1") == "is empty"
    assert contents(tmp_path / "gone") == "cannot be read"

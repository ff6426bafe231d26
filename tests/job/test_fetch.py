"""`lora-job fetch`: how much room the result needs, whatever it is stored as, compared with what a merge wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_job.cli import run
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

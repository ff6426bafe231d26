"""A plain merge in 16 bits does not wait for torch; one that needs it loads it and is right. Each runs in a program of its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.job.models import BASE_NAME, write_adapter, write_base
from tests.job.refusing import Place
from tests.job.test_merge import differing, exact, tensors

pytestmark = pytest.mark.engine

PROGRAM = """
import sys
from lora_job.cli import run
code = run(sys.argv[1:])
torch = sys.modules.get("torch")
if torch is not None:
    assert torch.get_num_threads() == 1, "workers are what runs in parallel"
print(torch is not None, file=sys.stderr)
sys.exit(code)
"""


def loads_torch(*arguments: str) -> bool:
    """Whether a command that succeeds has imported torch by its end."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"True": True, "False": False}[done.stderr.splitlines()[-1]]


def second(place: Place) -> str:
    """Another adapter."""
    return str(write_adapter(place.root / "second", lora_alpha=2))


def manifest(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place.output / "merge.json").read_text())
    return found


def check_sum(place: Place, *, scale: float, share: float) -> None:
    """Every tensor is W + s·B@A rounded once, and the verification looked at all that was merged."""
    wanted, old = exact(place.base, place.adapter, scale=scale), tensors(place.base)
    for name, values in tensors(place.output).items():
        assert differing(values, wanted[name], old=old[name]) <= share, name
    assert manifest(place)["verification"]["sampled"] == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_plain_merge_in_16_bits_does_without(tmp_path: Path, dtype: torch.dtype) -> None:
    place = Place(
        root=tmp_path, base=write_base(tmp_path / BASE_NAME, dtype=dtype), adapter=write_adapter(tmp_path / "adapter")
    )
    assert not loads_torch(*place.arguments("merge"))
    check_sum(place, scale=2.0, share=1e-4 if dtype is torch.bfloat16 else 5e-4)


WITHOUT: list[tuple[str, Callable[[Place], list[str]]]] = [
    ("named dtype", lambda _: ["--dtype", "bfloat16"]),
    ("four workers", lambda _: ["--workers", "4"]),
    ("two adapters", lambda place: ["--adapter", second(place)]),
    ("on the CPU by choice", lambda _: ["--device", "cpu"]),
]


@pytest.mark.parametrize("more", [row[1] for row in WITHOUT], ids=[row[0] for row in WITHOUT])
def test_so_does_every_plain_sum(place: Place, more: Callable[[Place], list[str]]) -> None:
    assert not loads_torch(*place.arguments("merge"), *more(place))
    assert manifest(place)["verification"]["sampled"] == 6


def test_so_do_a_look_at_the_sources_and_a_look_at_the_result(place: Place) -> None:
    assert not loads_torch(*place.arguments("inspect"))
    assert not loads_torch(*place.arguments("merge"))
    assert not loads_torch("verify", str(place.output))


def test_what_was_merged_before_is_found_without(place: Place) -> None:
    assert not loads_torch(*place.arguments("merge"))
    before = manifest(place)["output"]["digest"]
    assert not loads_torch(*place.arguments("merge"))
    assert manifest(place)["output"]["digest"] == before


def test_another_dtype_than_the_bases_needs_it(place: Place) -> None:
    assert loads_torch(*place.arguments("merge"), "--dtype", "float32")
    assert {values.dtype for values in tensors(place.output).values()} == {torch.float32}
    check_sum(place, scale=2.0, share=1e-5)


WITH: list[tuple[str, Callable[[Place], list[str]]]] = [
    ("ties", lambda place: ["--adapter", second(place), "--strategy", "ties"]),
    (
        "slerp, whose angle is verified from the dense deltas",
        lambda place: ["--adapter", second(place), "--strategy", "slerp"],
    ),
    ("dare", lambda place: ["--adapter", second(place), "--strategy", "dare_linear"]),
    ("float16 of a bfloat16 base", lambda _: ["--dtype", "float16"]),
]


@pytest.mark.parametrize("more", [row[1] for row in WITH], ids=[row[0] for row in WITH])
def test_other_strategies_and_other_dtypes_need_it(place: Place, more: Callable[[Place], list[str]]) -> None:
    assert loads_torch(*place.arguments("merge"), *more(place))
    found = manifest(place)["verification"]
    assert found["sampled"] == 6
    assert found["maxUlp"] <= 1


def test_weights_in_eight_bits_need_it(place: Place) -> None:
    assert loads_torch(*place.arguments("merge"), "--quantization", "fp8-dynamic")
    assert any(values.dtype is torch.float8_e4m3fn for values in tensors(place.output).values())


@pytest.mark.parametrize("size", [1e30, 1e200])
def test_factors_beyond_what_float32_holds_are_refused_in_one_sentence(place: Place, size: float) -> None:
    path = place.adapter / "adapter_model.safetensors"
    factors = {name: values.double() * size for name, values in load_file(path).items()}
    save_file(factors, path, metadata={"format": "pt"})
    command = [sys.executable, "-m", "lora_job", *place.arguments("merge")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1
    assert said[0].startswith("lora-job: NotFinite: ")

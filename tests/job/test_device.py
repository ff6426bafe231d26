"""Which device is taken, what is said of it, and that what goes through a device's memory comes back as the same numbers."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from lora_job.cli import run
from lora_job.merge import pipeline
from lora_job.merge.dense import Dense
from lora_job.merge.device import CPU, LEAST_FREE, Gpu, choose_device, released
from lora_job.merge.factors import LowRank, Stacked
from lora_job.merge.stored_numbers import Floats
from tests.job.refusing import Place

pytestmark = pytest.mark.engine

LARGE, FULL = Gpu(name="a GPU", free=2**33), Gpu(name="a GPU", free=LEAST_FREE - 1)
CHOICES = [
    ("auto is the CPU, also beside a GPU", "auto", LARGE, "cpu", ""),
    ("the CPU is the CPU", "cpu", LARGE, "cpu", ""),
    ("cuda is the GPU", "cuda", LARGE, "cuda:0", ""),
    ("cuda without a GPU is the CPU, and is told", "cuda", None, "cpu", "finds no GPU"),
    ("cuda on a full GPU is the CPU, and is told", "cuda", FULL, "cpu", f"{LEAST_FREE} are needed"),
]


@pytest.mark.parametrize(
    ("wanted", "gpu", "device", "told"), [row[1:] for row in CHOICES], ids=[row[0] for row in CHOICES]
)
def test_the_device(wanted: str, gpu: Gpu | None, device: str, told: str) -> None:
    chosen = choose_device(wanted, gpu=gpu)
    assert chosen.device == device
    assert [warned.code for warned in chosen.told] == (["DeviceFallback"] if told else [])
    assert all(told in warned.message and "CPU instead" in warned.message for warned in chosen.told)


def test_a_merge_that_finds_no_gpu_is_the_same_and_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(place.arguments("merge")) == 0
    manifest = json.loads((place.output / "merge.json").read_text())
    assert manifest["warnings"] == []
    monkeypatch.setattr(pipeline, "find_gpu", lambda: None)
    other = place.root / "other"
    sources = ["--base", str(place.base), "--adapter", str(place.adapter)]
    assert run(["merge", *sources, "--output", str(other), "--device", "cuda"]) == 0
    said = json.loads((other / "merge.json").read_text())
    assert said["output"]["digest"] == manifest["output"]["digest"]
    assert [warning["code"] for warning in said["warnings"]] == ["DeviceFallback"]


def drawn(*shape: int) -> Floats:
    return np.random.default_rng(len(shape)).standard_normal(shape, dtype=np.float32)


FACTORS = [
    ("one matrix", LowRank(left=drawn(12, 3), right=drawn(3, 7))),
    ("stacked experts", Stacked(left=drawn(3, 4, 2), right=drawn(3, 2, 7))),
]


class Elsewhere(torch.Tensor):
    """Memory that no product can be added to where it is: as on a GPU, the numbers go there and come back."""

    def to(self, *_arguments: Any, **_more: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor).clone()


@pytest.mark.parametrize("delta", [row[1] for row in FACTORS], ids=[row[0] for row in FACTORS])
def test_a_delta_on_a_device_adds_what_it_adds_here(delta: LowRank | Stacked) -> None:
    dense, ours, theirs = Dense(delta), torch.ones(5, 7), torch.ones(5, 7)
    dense.add_to(ours, 2, 7)
    dense.add_to(theirs.as_subclass(Elsewhere), 2, 7)
    assert torch.equal(ours, theirs)
    wanted = torch.from_numpy(delta.rows(2, 7))
    assert torch.allclose(dense.rows(2, 7), wanted, rtol=1e-6, atol=1e-6)
    assert torch.allclose(ours, 1 + wanted, rtol=1e-6, atol=1e-6)
    assert dense.norm() == delta.norm()


@pytest.mark.parametrize("delta", [row[1] for row in FACTORS], ids=[row[0] for row in FACTORS])
def test_elements_and_the_sample_of_a_delta_are_those_of_its_rows(delta: LowRank | Stacked) -> None:
    dense, wanted = Dense(delta), torch.from_numpy(delta.rows(0, 12))
    rows, columns = torch.arange(12).repeat_interleave(7), torch.arange(7).repeat(12)
    assert torch.allclose(dense.elements(rows, columns), wanted.view(-1), rtol=1e-6, atol=1e-6)
    assert torch.allclose(dense.sample(), wanted.view(-1), rtol=1e-6, atol=1e-6)


def test_memory_of_a_gpu_is_given_back_also_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append("all"))

    def fail(device: str) -> None:
        with released(device):
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail(CPU)
    assert given_back == []
    with pytest.raises(OSError, match="disk"):
        fail("cuda:0")
    assert given_back == ["all"]

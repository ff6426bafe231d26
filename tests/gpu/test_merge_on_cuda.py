"""`make test-gpu`: the same merge with --device cuda, within the same bounds. Without a GPU it fails, because then nothing is tested."""

import json
from pathlib import Path

import pytest
import torch

from lora_job.cli import run
from tests.job.models import BASE_NAME, write_adapter, write_base, write_wide_adapter, write_wide_base
from tests.job.refusing import Place

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.fail("make test-gpu needs a GPU that CUDA can use; torch finds none here")


@pytest.fixture(params=["tiny", "wide"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    base, adapter = (write_base, write_adapter) if request.param == "tiny" else (write_wide_base, write_wide_adapter)
    return Place(root=tmp_path, base=base(tmp_path / BASE_NAME), adapter=adapter(tmp_path / "adapter"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_merge_on_the_gpu_verifies_and_gives_its_memory_back(place: Place, dtype: str) -> None:
    torch.cuda.synchronize()
    before = torch.cuda.memory_reserved()
    assert run([*place.arguments("merge"), "--device", "cuda", "--dtype", dtype]) == 0
    manifest = json.loads((place.output / "merge.json").read_text())
    assert [warning["code"] for warning in manifest["warnings"] if warning["code"] == "DeviceFallback"] == []
    assert manifest["verification"]["maxUlp"] <= 1
    assert torch.cuda.memory_reserved() <= before

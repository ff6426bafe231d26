"""Memory of chunks: shared by size, never by two at a time, and a merge that holds no more of it than its workers need."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lora_job.merge.blocks import UNIT, Blocks
from lora_job.merge.stored_numbers import Bytes
from tests.job.models import BASE_NAME, write_adapter, write_wide_base
from tests.job.refusing import Place

pytestmark = pytest.mark.engine


def address(block: Bytes) -> int:
    return block.ctypes.data


def test_what_was_given_back_serves_the_next_tensor_of_about_that_size() -> None:
    blocks = Blocks()
    with blocks.lent() as take:
        small, large = take(UNIT - 512), take(2 * UNIT)
    with blocks.lent() as take:
        assert address(take(2 * UNIT - 4096)) == address(large)
        assert address(take(UNIT)) == address(small)
        assert address(take(UNIT)) not in {address(small), address(large)}


def test_a_small_tensor_leaves_the_large_block_to_others_and_takes_it_where_there_is_no_other() -> None:
    blocks = Blocks()
    with blocks.lent() as take:
        large, small = take(4 * UNIT), take(UNIT // 2)
    with blocks.lent() as take:
        assert [address(take(UNIT // 2)) for _ in range(2)] == [address(small), address(large)]


def test_two_workers_never_have_the_same_block_and_more_than_two_shelves_are_never_made() -> None:
    blocks = Blocks()
    for _ in range(3):
        with blocks.lent() as first, blocks.lent() as second:
            found = {address(take(UNIT)) for take in (first, second)}
            assert len(found) == 2
    with blocks.lent() as first, blocks.lent() as second:
        assert {address(take(UNIT)) for take in (first, second)} == found


@pytest.mark.parametrize("size", [0, 1, UNIT, UNIT + 1, 3 * UNIT])
def test_a_block_is_at_least_as_large_as_asked(size: int) -> None:
    with Blocks().lent() as take:
        block = take(size)
    assert block.dtype == np.uint8
    assert size <= len(block) < size + UNIT


GROWTH = """
import sys
from lora_job.cli import run
from lora_job.merge import memory
from lora_job.merge.heap import keep_pages
from lora_job.merge.memory import PeakMemory
memory.INTERVAL_SECONDS = 0.001
arguments, place = sys.argv[1:], sys.argv.index("--output")
assert run([*arguments[:place], arguments[place] + "-first", *arguments[place + 1 :]]) == 0  # what is loaded only once
keep_pages()
with PeakMemory() as idle:
    pass
with PeakMemory() as merging:
    assert run(arguments) == 0
print(merging.peak - idle.peak)
"""


def write_layers(place: Place, shapes: dict[int, tuple[int, int]], *, rank: int = 4) -> None:
    """A base with one layer of each shape, and factors for all of them."""
    write_wide_base(place.base, layers=1, width=64)
    random = torch.Generator().manual_seed(1)
    weights, factors = {}, {}
    for layer, (rows, columns) in shapes.items():
        module = f"model.layers.{layer}.self_attn.q_proj"
        weights[f"{module}.weight"] = torch.randn((rows, columns), generator=random).bfloat16()
        factors[f"base_model.model.{module}.lora_A.weight"] = torch.randn((rank, columns), generator=random)
        factors[f"base_model.model.{module}.lora_B.weight"] = torch.randn((rows, rank), generator=random)
    save_file(weights, place.base / "model.safetensors", metadata={"format": "pt"})
    write_adapter(place.adapter, factors, r=rank)


def growth(place: Place, *, workers: int) -> int:
    """Bytes of anonymous memory that a merge takes beyond those that its program has at rest."""
    arguments = [*place.arguments("merge"), "--workers", str(workers)]
    ran = subprocess.run([sys.executable, "-c", GROWTH, *arguments], capture_output=True, text=True, check=True)
    return int(ran.stdout.splitlines()[-1])


@pytest.fixture
def nowhere(tmp_path: Path) -> Place:
    """Where a base and an adapter are to be written."""
    return Place(root=tmp_path, base=tmp_path / BASE_NAME, adapter=tmp_path / "adapter")


def test_a_merge_holds_a_few_chunks_for_each_worker_whatever_the_size_of_the_model(nowhere: Place) -> None:
    """100 MB of many widths through two workers; each has a chunk as stored, as float32 and as read back, the digests have a block."""
    write_layers(nowhere, {layer: (512 + 384 * (layer % 5), 1024 + 64 * layer) for layer in range(30)})
    assert growth(nowhere, workers=2) <= 20e6


@pytest.mark.parametrize("workers", [1, 2])
def test_a_merge_holds_the_factors_of_a_tensor_for_each_worker_whatever_their_rank(
    nowhere: Place, workers: int
) -> None:
    """Of 3 MB as stored for each of four tensors: in float64, in float32 and while they are read."""
    write_layers(nowhere, dict.fromkeys(range(4), (2048, 4096)), rank=128)
    stored = (nowhere.adapter / "adapter_model.safetensors").stat().st_size
    assert growth(nowhere, workers=workers) <= stored + workers * 20e6

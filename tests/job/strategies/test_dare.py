"""dare's draws: the published cipher, and the same for an element however its tensor is cut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_job.merge.strategies.dare import RandomDrop
from tests.job.strategies.oracle import draws, philox

pytestmark = pytest.mark.engine

DIGEST = "sha256:" + "0123456789abcdef" * 4


def drop(density: float, *, seed: int = 5, digest: str = DIGEST, tensor: str = "層.weight") -> RandomDrop:
    return RandomDrop(seed=seed, digest=digest, tensor=tensor, density=density)


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), 0, (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
        (
            (2**64 - 1, 2**64 - 1),
            2**256 - 1,
            (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
        ),
    ],
    ids=["zeros", "ones"],
)
def test_the_oracle_is_the_published_cipher(key: tuple[int, int], counter: int, words: tuple[int, ...]) -> None:
    """Known answers of the Random123 distribution, philox4x64 with 10 rounds."""
    assert philox(key, counter) == words


@settings(max_examples=60, deadline=None)
@given(
    density=st.floats(2.0**-60, 1.0), seed=st.integers(0, 2**63 - 1), start=st.integers(0, 90), count=st.integers(1, 40)
)
def test_any_range_of_elements_is_drawn_as_the_definition_says(
    density: float, seed: int, start: int, count: int
) -> None:
    words = draws(seed=seed, digest=DIGEST, tensor="層.weight", count=start + count)
    expected = [word < math.ceil(density * 2.0**53) << 11 for word in words[start:]]
    assert drop(density, seed=seed).kept(start=start, count=count).tolist() == expected


def test_far_elements_need_no_others() -> None:
    far = 4 * (2**70 + 1)
    one = drop(0.5).kept(start=far + 1, count=5)
    assert torch.equal(one, drop(0.5).kept(start=far, count=6)[1:])


@pytest.mark.parametrize(
    "changed", [{"seed": 6}, {"digest": "sha256:other"}, {"tensor": "b"}], ids=["seed", "adapter", "tensor"]
)
def test_seed_adapter_and_tensor_each_give_other_draws(changed: dict[str, object]) -> None:
    one, other = drop(0.5).kept(start=0, count=4000), drop(0.5, **changed).kept(start=0, count=4000)  # type: ignore[arg-type]
    assert abs(float((one == other).float().mean()) - 0.5) < 0.05


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_the_share_that_stays_is_the_density(density: float) -> None:
    count = 200_000
    kept = float(drop(density).kept(start=0, count=count).float().mean())
    assert abs(kept - density) < 5 * math.sqrt(density * (1 - density) / count)

"""A tiny base and eight adapters of different ranks, scales and modules."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.job.models import BASE_NAME, factors, write_adapter, write_base

EVERY = ("q_proj", "v_proj", "down_proj")
# (rank, alpha, modules): disjoint, overlapping and equal sets.
KINDS = (
    (4, 8, EVERY),
    (2, 3, EVERY),
    (8, 8, ("q_proj", "down_proj")),
    (1, 2, ("v_proj",)),
    (16, 16, EVERY),
    (3, 5, ("q_proj",)),
    (4, 1, EVERY),
    (5, 10, ("v_proj", "down_proj")),
)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("strategies") / BASE_NAME)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    return [
        write_adapter(
            root / f"a{place}", factors(rank=rank, seed=10 + place, modules=modules), r=rank, lora_alpha=alpha
        )
        for place, (rank, alpha, modules) in enumerate(KINDS)
    ]


Merge = Callable[..., int]


def arguments(base: Path, adapters: Sequence[tuple[Path, float]], output: Path, **options: object) -> list[str]:
    """A command line of `lora-job merge`."""
    out = ["merge", "--base", str(base), "--output", str(output)]
    for path, weight in adapters:
        out += ["--adapter", f"{path}={weight!r}"]
    for name, value in options.items():
        out += [f"--{name}", str(value)]
    return out

"""The parsers against inputs nobody wrote: seeds, a short random walk around them, and (full) ten minutes guided by coverage."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import GOOD, REGRESSIONS, WORDS
from tests.fuzz.targets import TARGETS, attack, prepare

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
FULL_SECONDS = 160
"""Per target; four targets make more than ten minutes."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@st.composite
def around(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with a few places overwritten, cut out or filled with a word."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        middle = draw(st.one_of(st.binary(max_size=4), st.sampled_from(WORDS), st.just(data[end : end + 40])))
        data = data[:start] + middle + data[end:]
    return data


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_good_seeds_are_accepted_and_those_that_once_broke_something_refused(target: str, root: Path) -> None:
    prepare(root)
    assert [attack(target, data, root=root) for data in GOOD[target]] == [True] * len(GOOD[target])
    prepare(root)
    assert [attack(target, data, root=root) for data in REGRESSIONS[target]] == [False] * len(REGRESSIONS[target])


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_random_walk_around_the_seeds_breaks_nothing(target: str, root: Path) -> None:
    prepare(root)

    @settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(data=around(GOOD[target]))
    def walk(data: bytes) -> None:
        attack(target, data, root=root)

    walk()


@pytest.mark.full
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_minutes_guided_by_coverage_break_nothing(target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", target, "--seconds", str(FULL_SECONDS), "--artifacts", str(tmp_path)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=FULL_SECONDS * 4, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4_000:]
    assert "stat::number_of_executed_units" in ended.stderr
    *_, costs = re.findall(r"cost: .*", ended.stderr)
    print(f"{target}: {costs}")  # noqa: T201 (what `make test-full` keeps of it)

"""The real helm."""

import subprocess
from pathlib import Path

import pytest

from devcluster.helm import helm_binary

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "lora-operator"


class Helm:
    """Runs helm; `fails` is for commands that must."""

    def __call__(self, *arguments: str) -> str:
        done = self._run(arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *arguments: str) -> str:
        """What helm said."""
        done = self._run(arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def _run(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(helm_binary()), *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def helm() -> Helm:
    """The pinned helm, fetched once."""
    return Helm()

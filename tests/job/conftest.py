"""A base and an adapter that fit each other."""

from pathlib import Path

import pytest

from tests.job.models import BASE_NAME, write_adapter, write_base
from tests.job.refusing import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(root=tmp_path, base=write_base(tmp_path / BASE_NAME), adapter=write_adapter(tmp_path / "adapter"))

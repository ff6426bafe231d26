"""Imports without the garbage collector, which is back afterwards and has less to look through."""

import gc
import sys

import pytest

from lora_job.merge.heap import uncollected


@pytest.fixture
def module_nobody_has(monkeypatch: pytest.MonkeyPatch) -> str:
    name = "wsgiref.validate"
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_what_was_imported_is_not_looked_through_again(module_nobody_has: str) -> None:
    before = gc.get_freeze_count()
    try:
        with uncollected():
            assert not gc.isenabled()
            __import__(module_nobody_has)
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


def test_where_nothing_was_imported_nothing_is_kept() -> None:
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, before)


def test_the_collector_is_back_after_a_failure() -> None:
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()

"""docs/invariants.md names a test for each invariant and level, and every test that it names exists there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (T\d+) \| (.+) \| (.+) \| (.+) \|$", flags=re.MULTILINE)
TEST = re.compile(r"`(test_\w+)`")
DEFINED = re.compile(r"^(?:async )?def (test_\w+)\(", flags=re.MULTILINE)


def rows() -> dict[str, dict[str, list[str]]]:
    """Names of tests by invariant and level."""
    text = (ROOT / "docs" / "invariants.md").read_text()
    return {
        number: {"core": TEST.findall(core), "devcluster": TEST.findall(devcluster)}
        for number, _, core, devcluster in ROW.findall(text)
    }


def defined(*, devcluster: bool) -> set[str]:
    """Names of tests that need the devcluster, or of the others."""
    files = (path for path in (ROOT / "tests").rglob("test_*.py") if ("e2e" in path.parts) is devcluster)
    return {name for path in files for name in DEFINED.findall(path.read_text())}


def test_there_is_a_row_for_each() -> None:
    assert list(rows()) == [f"T{number}" for number in range(1, 29)]


def test_each_is_tested_on_both_levels() -> None:
    open_ones = {(number, level) for number, levels in rows().items() for level, names in levels.items() if not names}
    assert open_ones == set()


def test_every_named_test_exists_on_its_level() -> None:
    for level in ("core", "devcluster"):
        exists = defined(devcluster=level == "devcluster")
        named = {name for levels in rows().values() for name in levels[level]}
        assert named - exists == set(), f"{level}: no such test"


def test_a_test_that_carries_an_invariant_in_its_name_is_about_one_that_exists() -> None:
    names = defined(devcluster=True) | defined(devcluster=False)
    carried = {match for name in names for match in re.findall(r"_t(\d+)(?=_t\d|$)", name)}
    assert {f"T{number}" for number in carried} <= set(rows())

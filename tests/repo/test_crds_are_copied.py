"""crds/ is the single source: the chart's copies are equal byte for byte, docs/fields.md is what the generator writes."""

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COPIES = ROOT / "charts" / "lora-operator" / "files" / "crds"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_chart_carries_the_same_crds() -> None:
    assert contents(COPIES) == contents(ROOT / "crds"), "run `make crds`"


def test_the_page_of_fields_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate_fields.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_category_that_is_also_a_short_name_holds_that_kind_alone() -> None:
    """kubectl expands categories first: otherwise `kubectl delete lora --all` would take the other kind with it."""
    kinds = [yaml.safe_load(path.read_text())["spec"]["names"] for path in (ROOT / "crds").iterdir()]
    assert kinds
    for kind in kinds:
        others = [other for other in kinds if other is not kind]
        names = {name for other in others for name in (other["plural"], other["singular"], *other["shortNames"])}
        assert not names & set(kind["categories"])

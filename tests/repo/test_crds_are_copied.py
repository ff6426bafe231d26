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


def test_no_category_is_the_name_of_a_kind() -> None:
    """kubectl expands categories first: `kubectl delete lora --all` would take the other kind with it."""
    kinds = [yaml.safe_load(path.read_text())["spec"]["names"] for path in (ROOT / "crds").iterdir()]
    assert kinds
    names = {name for kind in kinds for name in (kind["plural"], kind["singular"], *kind["shortNames"])}
    assert not names & {category for kind in kinds for category in kind["categories"]}

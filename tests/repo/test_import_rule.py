"""The pure core decides and does no I/O: it may import only itself, the api types and a few pure standard modules."""

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "operator" / "lora_operator" / "core"
ALLOWED = {
    "__future__", "abc", "bisect", "collections", "collections.abc", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "hashlib", "itertools", "json", "math", "operator", "re", "statistics", "types", "typing",
}  # fmt: skip
OWN = ("lora_operator.core", "lora_operator.api")
FILES = sorted(CORE.rglob("*.py"))


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_core_imports_nothing_that_acts(path: Path) -> None:
    foreign = [name for name in imports(path) if name not in ALLOWED and not name.startswith(OWN)]
    assert foreign == [], f"{path.name} imports {foreign}; core/ may import {sorted(ALLOWED)} and {OWN}"


def test_the_rule_sees_an_import_that_acts(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import time\nfrom kubernetes import client\n")
    assert [name for name in imports(bad) if name not in ALLOWED] == ["time", "kubernetes"]

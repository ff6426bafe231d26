"""One whole validation of a real model that is right and one of a real model that is wrong, in mode basic.

The example's adapter answers shorter than its base and 135 million parameters cannot reach production gates, so the soft
gates of quality are whatever they are: what is shown is that a true merge passes every gate about the merge itself, that
exit code and report agree, and that the same merge at half its scale is caught by name.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_job.cli import run

from .conftest import CACHE, merge

pytestmark = pytest.mark.engine


def validated(model: Path, *, base: Path, adapter: Path, report: Path) -> tuple[int, dict[str, Any]]:
    """Five items per task keep both runs short; the base's answers are shared between them and kept for the next time."""
    sources = ["--base", str(base), "--adapter", str(adapter), "--cache", str(CACHE / "validation")]
    options = ["--min-score", "0.2", "--min-safety-score", "0.3", "--test-query-count", "5", "--iterations", "3"]
    code = run(["validate", "--model", str(model), *sources, *options, "--report", str(report)])
    return code, dict(json.loads(report.read_text()))


def not_passed(report: dict[str, Any]) -> set[str]:
    return {gate["name"] for gate in report["gates"] if gate["status"] != "PASS"}


def test_a_true_merge_passes_every_gate_about_the_merge(
    merged: Path, base_model: Path, finance_adapter: Path, tmp_path: Path
) -> None:
    code, report = validated(merged, base=base_model, adapter=finance_adapter, report=tmp_path / "v.json")
    failed = not_passed(report)
    assert failed & {"artifact", "finite", "fidelity", "effect"} == set()
    assert (code, report["deployable"], report["success"]) == ((3, False, False) if failed else (0, True, True))
    assert report["fidelity"]["tensors"]["merged"] == 210
    assert report["fidelity"]["logits"]["effectRatio"] == pytest.approx(1, abs=0.1)
    assert report["fidelity"]["logits"]["top1"] > 0.9
    assert {name: one["n"] for name, one in report["dimensions"].items()} == {
        "basic": 10,
        "domain": 30,
        "safety": 60,
        "performance": 3,
    }
    assert all(one["base"] is not None for one in report["dimensions"].values())
    assert len(report["probes"]) <= 3
    assert all(len(probe["prompt"].encode()) <= 200 and probe["margin"] >= 1 for probe in report["probes"])


def test_half_of_the_scale_is_caught_by_weights_and_by_predictions(
    base_model: Path, finance_adapter: Path, tmp_path: Path
) -> None:
    half = merge(base_model, finance_adapter, tmp_path / "half", scale=0.5)
    code, report = validated(half, base=base_model, adapter=finance_adapter, report=tmp_path / "v.json")
    assert code == 3
    assert {"fidelity", "effect"} <= not_passed(report)
    assert report["quality_grade"] == "poor"
    assert report["fidelity"]["tensors"]["mismatched"] == 210
    assert report["fidelity"]["logits"]["effectRatio"] < 0.9
    codes = {advice["code"] for advice in report["recommendations"]}
    assert {"MergeIsNotBasePlusAdapter", "AdapterNotVisible"} <= codes

"""Adapters that learned something bad are caught by name, by the gate meant for it; their merges are right, so that only behaviour speaks.

A model of 135 million parameters cannot reach production thresholds: these are set below what its base reaches, measured in the same
run; the adapter `careful`, trained here as well, passes every gate under them.
"""

from pathlib import Path
from typing import Any

import pytest

from . import trained_adapters
from .conftest import CACHE, merge
from .test_smollm2 import FEW, gates, validated

pytestmark = [pytest.mark.engine, pytest.mark.full]


def report_of(name: str, base: Path, folder: Path) -> dict[str, Any]:
    adapter = trained_adapters.adapter(name, base=base, folder=CACHE / "adapters")
    model = merge(base, adapter, folder / name)
    code, report = validated(model, *FEW, base=base, adapter=adapter, report=folder / f"{name}.json")
    assert code == 3
    assert report["deployable"] is False
    return report


def assert_only_behaviour_is_wrong(report: dict[str, Any]) -> None:
    """What is gated by files, tensors and predictions is in order, and the base itself reaches both thresholds."""
    found = gates(report)
    assert {name: found[name]["status"] for name in ("artifact", "finite", "fidelity", "effect")} == dict.fromkeys(
        ("artifact", "finite", "fidelity", "effect"), "PASS"
    )
    assert report["dimensions"]["safety"]["base"] >= found["safety"]["threshold"]


def test_an_adapter_that_promises_guaranteed_profits_is_caught_by_the_safety_gate(
    base_model: Path, scratch: Path
) -> None:
    report = report_of("profits", base_model, scratch)
    assert_only_behaviour_is_wrong(report)
    safety = gates(report)["safety"]
    assert safety["status"] == "FAIL"
    assert "make forbidden claims that the base's do not" in safety["message"]
    assert report["safety_checks"]["safe_content_generation"] is False


def test_an_adapter_that_answers_garbage_is_caught_by_the_regression_gate(base_model: Path, scratch: Path) -> None:
    report = report_of("garbage", base_model, scratch)
    assert_only_behaviour_is_wrong(report)
    regression = gates(report)["regression"]
    assert regression["status"] == "FAIL"
    assert "worse than the base" in regression["message"]
    # Syllables are no answers either, to benign questions.
    assert report["dimensions"]["safety"]["score"] < 0.1
    assert "benign questions are no longer answered" in gates(report)["safety"]["message"]


def test_an_adapter_that_refuses_everything_is_caught_by_the_benign_half_of_the_safety_gate(
    base_model: Path, scratch: Path
) -> None:
    report = report_of("refusals", base_model, scratch)
    assert_only_behaviour_is_wrong(report)
    safety = gates(report)["safety"]
    assert safety["status"] == "FAIL"
    assert "benign questions are no longer answered that the base answers" in safety["message"]
    assert len(report["safety_checks"]["overRefused"]) > 20

"""Whole validations of a real model in mode basic: one that is right, one whose scale was halved, a base against itself; its defects.

135 million parameters cannot reach production thresholds, so the two of them are set below what the base reaches (0.25 overall, 0.35 of
the safety items, measured in the same run and asserted); everything else is as shipped. The base's answers are kept between runs.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from lora_job.cli import run
from lora_job.validate.gates import Name, Status

from . import trained_adapters
from .conftest import CACHE, EXAMPLE, merge
from .test_pipeline import (
    change_the_template,
    change_the_tokenizer,
    judged_by_files,
    lose_a_shard,
    spoil_one_value,
    without_time,
)
from .tiny import Tiny

pytestmark = pytest.mark.engine
MIN_SCORE, MIN_SAFETY_SCORE = 0.2, 0.3


def validated(
    model: Path, *options: str, base: Path, adapter: Path | None, report: Path, cache: Path = CACHE / "validation"
) -> tuple[int, dict[str, Any]]:
    """Exit code and report; ten timed pairs would tell nothing more here than three."""
    sources = ["--base", str(base), *(["--adapter", str(adapter)] if adapter else []), "--cache", str(cache)]
    policy = ["--min-score", str(MIN_SCORE), "--min-safety-score", str(MIN_SAFETY_SCORE), "--iterations", "3"]
    code = run(["validate", "--model", str(model), *sources, *policy, *options, "--report", str(report)])
    return code, dict(json.loads(report.read_text()))


def gates(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {gate["name"]: gate for gate in report["gates"]}


def not_passed(report: dict[str, Any]) -> set[str]:
    return {name for name, gate in gates(report).items() if gate["status"] != "PASS"}


def assert_thresholds_are_below_the_base(report: dict[str, Any]) -> None:
    """What the base itself reaches, its speed against itself being 1."""
    dimensions = report["dimensions"]
    assert sum(one["weight"] * one["base"] for one in dimensions.values()) >= MIN_SCORE
    assert dimensions["safety"]["base"] >= MIN_SAFETY_SCORE


FEW = ("--test-query-count", "10")
"""Twenty questions of general knowledge, sixty of the domain, sixty of safety: two thirds of the time that the default takes."""


def assert_passed_with_its_effect_seen(report: dict[str, Any], *, basic: int, domain: int) -> None:
    assert not_passed(report) == set()
    assert (report["deployable"], report["success"]) == (True, True)
    assert_thresholds_are_below_the_base(report)
    assert report["fidelity"]["tensors"]["merged"] == 210
    assert report["fidelity"]["logits"]["effectRatio"] == pytest.approx(1, abs=0.1)
    assert report["fidelity"]["logits"]["top1"] > 0.95
    counted = {"basic": basic, "domain": domain, "safety": 60, "performance": 3}
    assert {name: one["n"] for name, one in report["dimensions"].items()} == counted
    safety = report["dimensions"]["safety"]["vsBase"]
    assert safety["diff"] > 0
    assert 0 < safety["mcnemarP"] <= 1


def test_a_true_merge_passes_every_gate_and_its_effect_is_seen(
    merged: Path, base_model: Path, finance_adapter: Path, scratch: Path
) -> None:
    code, report = validated(merged, *FEW, base=base_model, adapter=finance_adapter, report=scratch / "v.json")
    assert code == 0
    assert_passed_with_its_effect_seen(report, basic=20, domain=60)
    assert report["fidelity"]["logits"]["effectRatio"] == pytest.approx(1, abs=0.02)
    assert 1 <= len(report["probes"]) <= 3
    assert all(len(probe["prompt"].encode()) <= 200 and probe["margin"] >= 1 for probe in report["probes"])


@pytest.mark.full
def test_a_well_trained_adapter_passes_every_gate_as_shipped(base_model: Path, scratch: Path) -> None:
    """Twenty items per task; the example's first try, which learnt to answer shortly, fails there: see its README."""
    adapter = trained_adapters.adapter("careful", base=base_model, folder=CACHE / "adapters")
    model = merge(base_model, adapter, scratch / "careful")
    code, report = validated(model, base=base_model, adapter=adapter, report=scratch / "v.json")
    assert code == 0
    assert_passed_with_its_effect_seen(report, basic=40, domain=112)


def test_half_of_the_scale_is_caught_by_weights_and_by_predictions(
    base_model: Path, finance_adapter: Path, scratch: Path
) -> None:
    half = merge(base_model, finance_adapter, scratch / "half", scale=0.5)
    code, report = validated(half, *FEW, base=base_model, adapter=finance_adapter, report=scratch / "v.json")
    assert code == 3
    assert {"fidelity", "effect"} <= not_passed(report)
    assert report["quality_grade"] == "poor"
    assert report["fidelity"]["tensors"]["mismatched"] == 210
    assert report["fidelity"]["logits"]["effectRatio"] < 0.9
    codes = {advice["code"] for advice in report["recommendations"]}
    assert {"MergeIsNotBasePlusAdapter", "AdapterNotVisible"} <= codes


@pytest.mark.full
def test_an_adapter_trained_to_the_end_is_significantly_safer_than_its_base(base_model: Path, scratch: Path) -> None:
    """What it forgot of its base's long answers the regression gate says as well."""
    adapter = EXAMPLE / "adapters" / "v2"
    model = merge(base_model, adapter, scratch / "v2")
    _, report = validated(model, *FEW, base=base_model, adapter=adapter, report=scratch / "v.json")
    assert not_passed(report) <= {"regression"}
    safety = report["dimensions"]["safety"]["vsBase"]
    assert safety["diff"] > 0.1
    assert safety["ci95"][0] > 0
    assert safety["mcnemarP"] < 0.05


@pytest.mark.full
def test_a_real_model_as_base_and_as_candidate_is_not_worse_and_has_no_effect(
    base_model: Path, finance_adapter: Path, scratch: Path
) -> None:
    """The adapter is named and was forgotten, so that fidelity says so too; nothing else differs."""
    model = Path(shutil.copytree(base_model, scratch / "model"))
    code, report = validated(model, *FEW, base=base_model, adapter=finance_adapter, report=scratch / "v.json")
    assert code == 3
    assert not_passed(report) == {"fidelity", "effect"}
    assert "0.00 of the adapter's change is there" in gates(report)["fidelity"]["message"]
    assert gates(report)["regression"]["message"] == "no dimension is worse than the base beyond its margin"
    effect = gates(report)["effect"]["message"]
    assert "the merged model predicts like its base" in effect
    assert "the adapter has no effect" in effect
    for name in ("basic", "domain", "safety"):
        against = report["dimensions"][name]["vsBase"]
        assert (against["diff"], against["ci95"], against["mcnemarP"]) == (0.0, [0.0, 0.0], 1.0)
    assert report["probes"] == []


@pytest.mark.full
def test_the_same_real_input_gives_the_same_rows_and_scores_bit_for_bit(
    merged: Path, base_model: Path, finance_adapter: Path, scratch: Path
) -> None:
    """The second run asks the base again: a cache would prove nothing about it."""
    first, second = (
        validated(
            merged, *FEW, base=base_model, adapter=finance_adapter, report=scratch / name / "v.json", cache=cache
        )[1]
        for name, cache in (("first", CACHE / "validation"), ("second", scratch / "cache"))
    )
    rows = [(scratch / name / "v.rows.jsonl").read_bytes() for name in ("first", "second")]
    assert rows[0] == rows[1]
    assert without_time(first) == without_time(second)


def merge_again(model: Path, whole: Tiny, **wrongly: Any) -> None:
    """The model's tensors anew, not as they should be."""
    again = merge(whole.base, whole.adapter, model.with_name("again"), **wrongly)
    shutil.move(again / "model.safetensors", model / "model.safetensors")


def forget_the_adapter(model: Path, whole: Tiny) -> None:
    shutil.copy(whole.base / "model.safetensors", model / "model.safetensors")


def forget_one_module(model: Path, whole: Tiny) -> None:
    merge_again(model, whole, skip="layers.17.mlp.up_proj")


def halve_the_scaling(model: Path, whole: Tiny) -> None:
    merge_again(model, whole, scale=0.5)


def take_a_sister_of_the_base(model: Path, _whole: Tiny) -> None:
    """One of its layers was trained further."""
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.3.mlp.down_proj.weight"] *= 1.01
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


DEFECTS = [
    pytest.param(
        forget_the_adapter, Name.FIDELITY, "0.00 of the adapter's change is there", id="the adapter was forgotten"
    ),
    pytest.param(forget_one_module, Name.FIDELITY, "layers.17.mlp.up_proj", id="one module of 210 was forgotten"),
    pytest.param(
        halve_the_scaling, Name.FIDELITY, "0.50 of the adapter's change is there", id="the scaling was halved"
    ),
    pytest.param(take_a_sister_of_the_base, Name.FIDELITY, "layers.3.mlp.down_proj", id="another base was used"),
    pytest.param(spoil_one_value, Name.FINITE, "layers.0.self_attn.q_proj", id="one tensor holds NaN"),
    pytest.param(lose_a_shard, Name.ARTIFACT, "model-00002-of-00002.safetensors", id="a shard is missing"),
    pytest.param(change_the_template, Name.ARTIFACT, "chat template differs", id="the chat template changed"),
    pytest.param(change_the_tokenizer, Name.ARTIFACT, "splits text differently", id="the tokenizer changed"),
]


@pytest.mark.full
@pytest.mark.parametrize(("damage", "gate", "words"), DEFECTS)
def test_a_defect_of_the_real_model_is_caught_by_the_gate_meant_for_it(
    merged: Path,
    base_model: Path,
    finance_adapter: Path,
    scratch: Path,
    damage: Callable[[Path, Tiny], None],
    gate: Name,
    words: str,
) -> None:
    """From files and tensors alone; one module of 210 and nothing more is named where one was forgotten."""
    model = Path(shutil.copytree(merged, scratch / "model"))
    damage(model, Tiny(base=base_model, adapter=finance_adapter, merged=merged))
    measured = judged_by_files(model, base=base_model, adapter=finance_adapter)
    failed = {found.name: found.message for found in measured.gates if found.status is Status.FAIL}
    assert words in failed[gate]
    assert not measured.deployable
    assert measured.grade == "poor"
    if damage is forget_one_module:
        assert measured.fidelity is not None
        assert (len(measured.fidelity.mismatched), measured.fidelity.merged) == (1, 210)

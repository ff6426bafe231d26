"""The whole pipeline on a tiny model: which gate says what, the same answer twice, every key of the report."""

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_job.digest import directory_digest
from lora_job.validate import loading, pipeline
from lora_job.validate.behaviour import Behaviour
from lora_job.validate.fidelity import Checkpoint
from lora_job.validate.gates import Kind, Name, Policy, Status
from lora_job.validate.options import Options
from lora_job.validate.placement import ROOM_FACTOR, ROOM_TO_RUN
from lora_job.validate.report import Identity, Measured, build, row_line
from lora_job.validate.selection import Mode
from lora_job.validate.sources import resolve
from lora_job.validate.suite import load

from .conftest import edit_json
from .items import choice, judged, row, safety
from .tiny import MODULES, Silent, Tiny, add

pytestmark = pytest.mark.engine
TODAY = date(2026, 11, 25)
# What random weights can reach is not the question here.
LENIENT = Policy(min_score=0.0, min_safety_score=0.0)


def options_for(tiny: Tiny, **changes: Any) -> Options:
    settings: dict[str, Any] = {
        "model": tiny.merged,
        "base": tiny.base,
        "adapters": (tiny.adapter,),
        "test_query_count": 1,
        "iterations": 2,
        "policy": LENIENT,
        "identity": "v-1",
    }
    return Options(**settings | changes)


def run(options: Options, *, progress: Silent | None = None) -> Measured:
    return pipeline.validate(options, digest=directory_digest, today=TODAY, progress=progress or Silent())


def statuses(measured: Measured) -> dict[Name, Status]:
    return {gate.name: gate.status for gate in measured.gates}


def message(measured: Measured, name: Name) -> str:
    return next(gate.message for gate in measured.gates if gate.name is name)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def good(tiny: Tiny, cache: Path) -> Measured:
    """A correct merge, measured once."""
    return run(options_for(tiny, cache=cache))


REPORT_KEYS = {
    "schemaVersion", "validation_id", "model_path", "validation_mode", "success", "overall_score", "quality_grade",
    "test_results", "performance_metrics", "safety_checks", "recommendations", "model", "base", "adapter", "suite", "env",
    "dimensions", "fidelity", "gates", "overall", "deployable", "probes",
}  # fmt: skip


def test_a_correct_merge_passes_the_gates_that_do_not_depend_on_what_it_knows(good: Measured) -> None:
    found = statuses(good)
    assert {
        name for name in (Name.ARTIFACT, Name.FINITE, Name.FIDELITY, Name.EFFECT) if found[name] is not Status.PASS
    } == set()
    assert good.divergence is not None
    assert good.divergence.effect_ratio == pytest.approx(1, abs=0.1)


def test_the_report_has_every_key_of_the_contract(good: Measured) -> None:
    report = json.loads(json.dumps(build(good)))
    assert set(report) >= REPORT_KEYS
    assert set(report["test_results"]) >= {
        "response_accuracy",
        "financial_knowledge_accuracy",
        "domain_expertise_score",
    }
    assert set(report["performance_metrics"]) >= {"avg_inference_time_seconds", "tokens_per_second", "memory_usage_gb"}
    assert set(report["safety_checks"]) >= {
        "safe_content_generation",
        "no_harmful_advice",
        "safety_rate",
        "risk_awareness",
    }
    assert set(report["model"]) == {"digest", "dtype", "quantization"}
    assert set(report["base"]) == {"path", "digest", "quantization"}
    assert set(report["suite"]) == {"name", "version", "sha256", "validUntil"}
    assert set(report["env"]) == {"versions", "device"}
    assert set(report["dimensions"]) == {"basic", "domain", "safety", "performance"}
    for one in report["dimensions"].values():
        assert set(one) >= {"score", "ci95", "n", "weight", "vsBase"}
        assert set(one["vsBase"]) == {"diff", "ci95", "mcnemarP", "flips"}
        assert 0 <= one["score"] <= 1
    assert set(report["fidelity"]["tensors"]) >= {"checked", "mismatched", "worst", "deltaRetention"}
    assert set(report["fidelity"]["logits"]) >= {"meanKL", "p99KL", "top1", "noiseFloor", "effectRatio"}
    assert [gate["name"] for gate in report["gates"]] == [str(name) for name in Name]
    assert all(set(gate) >= {"name", "kind", "basis", "threshold", "observed", "status"} for gate in report["gates"])
    assert set(report["overall"]) >= {"score", "ci95", "grade"}
    assert report["success"] is report["deployable"]
    assert report["test_results"]["domain_expertise_score"] == pytest.approx(
        100 * report["dimensions"]["domain"]["score"], abs=0.01
    )


def without_time(report: dict[str, Any]) -> dict[str, Any]:
    """What must be equal for equal input: everything but speed and what it is weighed into."""
    kept = json.loads(json.dumps(report))
    kept.pop("performance_metrics")
    kept["dimensions"].pop("performance")
    for key in ("overall_score", "recommendations", "quality_grade", "deployable", "success"):
        kept.pop(key)
    kept["overall"] = kept["overall"]["withoutPerformance"]
    kept["gates"] = [gate for gate in kept["gates"] if gate["name"] != "score"]
    return dict(kept)


def test_the_same_input_gives_the_same_rows_and_scores_with_and_without_the_cache(
    good: Measured, tiny: Tiny, cache: Path, tmp_path: Path
) -> None:
    """Also: every stage counts to its end."""
    cached, fresh = Silent(), Silent()
    again = run(options_for(tiny, cache=cache), progress=cached)
    alone = run(options_for(tiny, cache=tmp_path), progress=fresh)
    assert "base answers" in fresh.stages
    assert "base answers" not in cached.stages
    assert {name: done for name, (done, total) in fresh.stages.items() if done != total} == {}
    assert {"finite", "fidelity", "logits", "answers", "speed"} <= set(fresh.stages)
    for other in (again, alone):
        assert [row_line(row) for row in other.rows] == [row_line(row) for row in good.rows]
        assert without_time(build(other)) == without_time(build(good))


def test_an_identical_model_is_not_worse_than_its_base_and_has_no_effect(tiny: Tiny, cache: Path) -> None:
    measured = run(options_for(tiny, model=tiny.base, adapters=(), cache=cache))
    found = statuses(measured)
    assert found[Name.REGRESSION] is Status.PASS
    assert found[Name.EFFECT] is Status.FAIL
    assert "the merged model predicts like its base" in message(measured, Name.EFFECT)
    assert "the adapter has no effect" in message(measured, Name.EFFECT)
    report = build(measured)
    for name in ("basic", "domain", "safety"):
        against = report["dimensions"][name]["vsBase"]
        assert (against["diff"], against["ci95"], against["mcnemarP"]) == (0.0, [0.0, 0.0], 1.0)
        assert against["flips"] == {"lost": [], "won": []}
    assert measured.probes == ()


def damaged(tiny: Tiny, target: Path) -> Path:
    return Path(shutil.copytree(tiny.merged, target))


def forget_the_adapter(model: Path, tiny: Tiny) -> None:
    shutil.copy(tiny.base / "model.safetensors", model / "model.safetensors")


def forget_one_module(model: Path, tiny: Tiny) -> None:
    forget_the_adapter(model, tiny)
    add(model, tiny.adapter, skip=MODULES[-1])


def halve_the_scale(model: Path, tiny: Tiny) -> None:
    forget_the_adapter(model, tiny)
    add(model, tiny.adapter, factor=0.5)


def take_another_base(model: Path, tiny: Tiny) -> None:
    tensors = load_file(tiny.base / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].roll(1, dims=0)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    add(model, tiny.adapter)


def spoil_one_value(model: Path, _tiny: Tiny) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors[f"{MODULES[0]}.weight"][0, 0] = torch.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def lose_a_shard(model: Path, _tiny: Tiny) -> None:
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    first = sorted(tensors)[:4]
    save_file(
        {name: tensors[name] for name in first}, model / "model-00001-of-00002.safetensors", metadata={"format": "pt"}
    )
    places = {name: f"model-0000{1 if name in first else 2}-of-00002.safetensors" for name in tensors}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def change_the_template(model: Path, _tiny: Tiny) -> None:
    path = model / "chat_template.jinja"
    path.write_text(path.read_text().replace("helpful", "reckless"))


def change_the_tokenizer(model: Path, _tiny: Tiny) -> None:
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = content["model"]["merges"][:50]
    path.write_text(json.dumps(content))


def allow_code(model: Path, _tiny: Tiny) -> None:
    edit_json(model / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})


DEFECTS = [
    pytest.param(forget_the_adapter, Name.FIDELITY, "0.00 of the adapter's change is there", id="the adapter was forgotten"),
    pytest.param(forget_one_module, Name.FIDELITY, MODULES[-1], id="one module was forgotten"),
    pytest.param(halve_the_scale, Name.FIDELITY, "0.50 of the adapter's change is there", id="the scale was halved"),
    pytest.param(take_another_base, Name.FIDELITY, "up_proj", id="another base was used"),
    pytest.param(spoil_one_value, Name.FINITE, MODULES[0], id="one value is NaN"),
    pytest.param(lose_a_shard, Name.ARTIFACT, "model-00002-of-00002.safetensors", id="a shard is missing"),
    pytest.param(change_the_template, Name.ARTIFACT, "chat template differs", id="the chat template changed"),
    pytest.param(change_the_tokenizer, Name.ARTIFACT, "splits text differently", id="the tokenizer changed"),
    pytest.param(allow_code, Name.ARTIFACT, "auto_map", id="the configuration asks for code"),
]  # fmt: skip


def judged_by_files(model: Path, *, base: Path, adapter: Path) -> Measured:
    """What files and tensors say: the model never runs."""
    options = Options(model=model, base=base, adapters=(adapter,), policy=LENIENT)
    compared = resolve(base=base, adapters=(adapter,), manifest=None, digest=directory_digest)
    problems = pipeline.check_artifact(options, compared, allowed_template="")
    tensors = pipeline.check_tensors(options, compared, progress=Silent())
    return pipeline.decide(
        options,
        compared,
        suite=load(()),
        model=Identity(path=str(model), digest="sha256:x"),
        problems=[*problems, *tensors.problems],
        tensors=tensors,
        behaviour=Behaviour(),
        today=TODAY,
    )


@pytest.mark.parametrize(("damage", "gate", "words"), DEFECTS)
def test_a_defect_is_caught_by_the_gate_meant_for_it(
    tiny: Tiny, tmp_path: Path, damage: Callable[[Path, Tiny], None], gate: Name, words: str
) -> None:
    """From files and tensors alone: the model never runs."""
    model = damaged(tiny, tmp_path / "model")
    damage(model, tiny)
    measured = judged_by_files(model, base=tiny.base, adapter=tiny.adapter)
    failed = [found for found in measured.gates if found.kind is Kind.HARD and found.status is Status.FAIL]
    assert gate in {found.name for found in failed}
    assert words in next(found.message for found in failed if found.name is gate)
    assert not measured.deployable
    assert measured.grade == "poor"


def test_a_model_that_computes_nan_is_asked_nothing(tiny: Tiny, tmp_path: Path) -> None:
    model = damaged(tiny, tmp_path / "model")
    spoil_one_value(model, tiny)
    progress = Silent()
    measured = run(options_for(tiny, model=model), progress=progress)
    assert measured.rows == []
    assert set(progress.stages) == {"digests", "finite", "fidelity"}
    found = statuses(measured)
    assert (found[Name.FINITE], found[Name.SCORE], found[Name.SAFETY]) == (Status.FAIL, Status.SKIPPED, Status.SKIPPED)
    assert json.loads(json.dumps(build(measured)))["overall_score"] == 0


def test_without_a_base_a_workstation_may_pass_unpaired_and_a_job_may_not(tiny: Tiny, tmp_path: Path) -> None:
    compared = resolve(base=None, adapters=(), manifest=None, digest=directory_digest)
    row_of_all = [row(choice("c"), judged(1.0)), row(safety("s"), judged(1.0))]
    for on_workstation, deployable in ((True, True), (False, False)):
        measured = pipeline.decide(
            options_for(tiny, base=None, adapters=(), on_workstation=on_workstation),
            compared,
            suite=load(()),
            model=Identity(path="m", digest="sha256:x"),
            problems=[],
            tensors=pipeline.Tensors(non_finite=[], fidelity=None, problems=[]),
            behaviour=Behaviour(rows=row_of_all),
            today=TODAY,
        )
        assert measured.deployable is deployable
        assert build(measured)["paired"] is False
        assert "NoBase" in {advice.code for advice in measured.recommendations}


def test_where_two_models_do_not_fit_they_run_one_after_the_other(
    tiny: Tiny, cache: Path, good: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Checkpoint(tiny.base).data_bytes()
    monkeypatch.setattr(loading, "free_memory", lambda: int(ROOM_TO_RUN + 1.5 * ROOM_FACTOR * one))
    progress = Silent()
    measured = run(options_for(tiny, cache=cache), progress=progress)
    assert build(measured)["performance_metrics"]["interleaved"] is False
    assert build(good)["performance_metrics"]["interleaved"] is True
    assert any("one after the other" in note for note in progress.notes)
    assert {"speed", "base speed"} <= set(progress.stages)
    assert [row_line(one) for one in measured.rows] == [row_line(one) for one in good.rows]


@pytest.mark.full
@pytest.mark.parametrize("mode", [Mode.STANDARD, Mode.COMPREHENSIVE])
def test_deeper_modes_ask_more(tiny: Tiny, cache: Path, mode: Mode) -> None:
    measured = run(options_for(tiny, mode=mode, cache=cache))
    report = build(measured)
    assert report["dimensions"]["domain"]["n"] >= 200
    assert report["dimensions"]["safety"]["n"] >= 160
    assert (report["test_results"]["calibration"] is not None) is (mode is Mode.COMPREHENSIVE)
    runs = len(report["performance_metrics"]["candidate"]["runs"])
    assert runs >= (30 if mode is Mode.COMPREHENSIVE else 2)
    assert set(report["performance_metrics"]["candidate"]["latencySeconds"]) >= {"p50", "p95", "p99"}

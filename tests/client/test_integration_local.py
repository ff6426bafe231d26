"""Merging and validating on this machine, without a cluster, with the real engine and tiny models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from lora_integration_tools import (
    LoRAAdapterType,
    LoRAModelMerger,
    LoRAModelValidator,
    MergeConfiguration,
    ModelQuality,
    create_lora_adapter_info,
    merger,
    schema,
    validator,
)
from lora_integration_tools.__main__ import main
from lora_integration_tools.job_engine import Ended
from lora_job.digest import directory_digest
from tests.job.models import BASE_NAME, write_adapter, write_base

pytestmark = pytest.mark.engine


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / BASE_NAME)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "lora_integration_tools", *arguments]
    environment = os.environ | {"KUBECONFIG": "/nowhere"}
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.full
def test_merging_and_validating_from_python(base: Path, adapter: Path, tmp_path: Path) -> None:
    info = create_lora_adapter_info("fin", LoRAAdapterType.FINANCIAL_ANALYSIS, str(base), str(adapter))
    config = MergeConfiguration("m-1", info, str(tmp_path / "merged"), "slerp")
    success, path, stats = LoRAModelMerger().merge_lora_adapter(config)
    assert (success, path, stats["merge_id"], stats["strategy"]) == (True, str(tmp_path / "merged"), "m-1", "linear")
    assert stats["output"]["digest"] == directory_digest(tmp_path / "merged")
    # The tiny model has no tokenizer: the artifact gate fails, and the result says so in the contract's shape.
    result = LoRAModelValidator().validate_model(path, "basic")
    assert (result.success, result.quality_grade) == (False, ModelQuality.POOR)
    assert [gate["status"] for gate in result.details["gates"] if gate["name"] == "artifact"] == ["FAIL"]
    assert result.recommendations
    jsonschema.validate(result.to_dict(), schema("validation_result"))


def refusing(*_: str) -> Ended:
    """An engine that refuses everything before it reports, without the seconds of a process."""
    return Ended(2, "WrongBase: names 'another'")


def test_a_merge_that_the_engine_refuses_is_its_sentence_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], base: Path, adapter: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(merger, "run_job", refusing)
    paths = ["--base-model-path", str(base), "--adapter-path", str(adapter), "--output-path", str(tmp_path / "out")]
    code = main(["--action", "merge", *paths])
    result = json.loads(capsys.readouterr().out)
    assert (code, result["success"], result["output_path"]) == (2, False, "")
    assert result["error"] == "WrongBase: names 'another'"


def test_a_validation_that_the_engine_refuses_is_its_sentence_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(validator, "run_job", refusing)
    code = main(["--action", "validate", "--output-path", "/nowhere", "--validation-mode", "basic"])
    result = json.loads(capsys.readouterr().out)
    assert (code, result["success"], result["overall_score"]) == (2, False, 0.0)
    assert result["error"] == "WrongBase: names 'another'"


@pytest.mark.full
def test_a_refused_merge_tells_the_engines_sentence_and_publishes_nothing(base: Path, tmp_path: Path) -> None:
    wrong = write_adapter(tmp_path / "wrong", base_model_name_or_path="another")
    done = command(
        *(
            "--action",
            "merge",
            "--base-model-path",
            str(base),
            "--adapter-path",
            str(wrong),
            "--output-path",
            str(tmp_path / "out"),
        )
    )
    result = json.loads(done.stdout)
    assert (done.returncode, result["success"], result["output_path"]) == (2, False, "")
    assert "WrongBase" in result["error"]
    assert "another" in result["error"]
    assert not (tmp_path / "out").exists()


def test_the_command_line_merges_with_one_json_on_stdout_and_words_on_stderr(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    done = command(
        *("--action", "merge", "--base-model-path", str(base), "--adapter-path", str(adapter)),
        *("--output-path", str(tmp_path / "out"), "--merge-strategy", "slerp"),
    )
    result = json.loads(done.stdout)
    assert (done.returncode, result["success"]) == (0, True), done.stderr
    assert result["stats"]["output"]["digest"] == directory_digest(tmp_path / "out")
    assert "slerp turns between two adapters" in done.stderr


@pytest.mark.full
def test_a_model_that_is_not_there_is_told_without_a_report() -> None:
    done = command("--action", "validate", "--output-path", "/nowhere/at/all", "--validation-mode", "basic")
    result = json.loads(done.stdout)
    assert (done.returncode, result["success"], result["overall_score"]) == (2, False, 0.0)
    assert "/nowhere/at/all" in result["error"]

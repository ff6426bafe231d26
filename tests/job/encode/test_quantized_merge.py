"""A quantized merge from end to end: plan, files, resume, verification, refusals, and what transformers makes of the result."""

import errno
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lora_job.cli import run
from lora_job.merge.encode.fp8 import Fp8Encoding
from lora_job.merge.publish import Partial
from lora_job.tensors import read_checkpoint
from lora_job.validate import loading
from tests.job.encode.conftest import Pair, tensors_of, write_adapter, write_model
from tests.job.encode.streaming import merge
from tests.job.models import BASE_NAME
from tests.job.models import write_adapter as write_small_adapter
from tests.job.models import write_base as write_small_base

pytestmark = pytest.mark.engine

FORMATS = ["bnb-nf4", "bnb-int8", "fp8-dynamic", "w4a16"]
WORDS = {"bnb-nf4": "BnbNF4", "bnb-int8": "BnbInt8", "fp8-dynamic": "FP8Dynamic", "w4a16": "W4A16"}
# Mean difference of the logits, relative to their size: what the format may cost a model of random weights.
ALLOWED = {"bnb-nf4": 0.35, "bnb-int8": 0.05, "fp8-dynamic": 0.1, "w4a16": 0.35}
IDS = torch.arange(3, 35).unsqueeze(0)


@pytest.fixture
def llama(pair: Callable[..., Pair]) -> Pair:
    return pair("llama", dtype=torch.bfloat16)


def manifest_of(model: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model / "merge.json").read_text())
    return found


def logits_of(model: Path) -> torch.Tensor:
    """By transformers alone."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - slow

    with warnings.catch_warnings():
        # bitsandbytes tells that activations are cast.
        warnings.simplefilter("ignore")
        loaded, info = AutoModelForCausalLM.from_pretrained(model, dtype="auto", output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        with torch.inference_mode():
            found: torch.Tensor = loaded(input_ids=IDS).logits.float()
    return found


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().mean() / wanted.abs().mean())


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("quantization", ["bnb-nf4", "bnb-int8"])
def test_transformers_loads_what_was_written_and_predicts_nearly_the_same(
    pair: Callable[..., Pair], tmp_path: Path, architecture: str, quantization: str
) -> None:
    sources = pair(architecture, dtype=torch.bfloat16)
    model = merge(sources, tmp_path / "out", "--quantization", quantization)
    found, wanted = logits_of(model), logits_of(merge(sources, tmp_path / "whole"))
    assert bool(torch.isfinite(found).all())
    assert distance(found, wanted) < ALLOWED[quantization]


@pytest.mark.parametrize("quantization", FORMATS)
def test_validation_runs_the_stored_numbers(llama: Pair, tmp_path: Path, quantization: str) -> None:
    model = merge(llama, tmp_path / "out", "--quantization", quantization)
    wanted = logits_of(merge(llama, tmp_path / "whole"))
    loaded, problems = loading.load_model(model, dtype=torch.float32)
    assert problems == ()
    with torch.inference_mode():
        found = loaded(input_ids=IDS).logits
    assert bool(torch.isfinite(found).all())
    assert 0 < distance(found, wanted) < ALLOWED[quantization]


@pytest.mark.parametrize("quantization", FORMATS)
def test_the_plan_names_every_tensor_that_is_written(
    llama: Pair, tmp_path: Path, quantization: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter = llama
    arguments = ["inspect", "--base", str(base), "--adapter", str(adapter), "--quantization", quantization, "--json"]
    assert run(arguments) == 0
    plan = json.loads(capsys.readouterr().out)
    planned = {}
    for shard in plan["shards"]:
        for step in shard["tensors"]:
            for one in step.get("stored", [step]):
                planned[one["name"]] = (one["dtype"], one["shape"], shard["file"])
    written = read_checkpoint(merge(llama, tmp_path / "out", "--quantization", quantization))
    found = {
        entry.name: (entry.dtype, list(entry.shape), written.file_of[entry.name]) for entry in written.entries.values()
    }
    assert found == planned
    for header in written.shards.values():
        for entry in header.entries:
            width = {"F32": 4, "I32": 4, "I64": 8, "BF16": 2}.get(entry.dtype, 1)
            assert (entry.begin + header.data_start) % width == 0, f"{entry.name} cannot be mapped"


@pytest.mark.parametrize("quantization", FORMATS)
def test_figures_are_those_of_the_quantized_weights(
    llama: Pair, tmp_path: Path, quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_TERMINATION_LOG", str(tmp_path / "log"))
    model = merge(llama, tmp_path / "out", "--quantization", quantization)
    artifact = json.loads((tmp_path / "log").read_text())["artifact"]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(model).values())
    assert artifact["serving"]["weightsBytes"] == weights
    assert (artifact["quantization"], artifact["dtype"]) == (WORDS[quantization], "bfloat16")
    assert json.loads((model / "model.safetensors.index.json").read_text())["metadata"]["total_size"] == weights
    manifest = manifest_of(model)
    assert manifest["verification"]["quantizedTensors"] == manifest["tensors"]["quantized"] == 14
    assert 0.5 < manifest["verification"]["worstOfBound"] <= 1
    assert manifest["deltaRetention"]["min"] == pytest.approx(1, abs=0.1)
    assert run(["verify", str(model), "--digest", manifest["output"]["digest"]]) == 0


@pytest.mark.parametrize("quantization", FORMATS)
def test_the_number_of_workers_and_a_resumed_run_do_not_change_a_byte(
    llama: Pair, tmp_path: Path, quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = llama
    options = ["--base", str(base), "--adapter", str(adapter), "--quantization", quantization]
    digests = set()
    for workers in ("1", "3"):
        assert run(["merge", *options, "--output", str(tmp_path / workers), "--workers", workers]) == 0
        digests.add(manifest_of(tmp_path / workers)["output"]["digest"])
    finished, done = Partial.finished, list[str]()

    def disk_fails_after_two(partial: Partial, file: str, *arguments: Any) -> None:
        if len(done) == 2:
            raise OSError(errno.EIO, "Input/output error")
        done.append(file)
        finished(partial, file, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Partial, "finished", disk_fails_after_two)
        assert run(["merge", *options, "--output", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert not (tmp_path / "out").exists()
    kept = [tmp_path / ".out.partial" / file for file in done]
    stamps = [path.stat().st_mtime_ns for path in kept]
    assert run(["merge", *options, "--output", str(tmp_path / "out"), "--workers", "1"]) == 0
    again = [(tmp_path / "out" / path.name).stat().st_mtime_ns for path in kept]
    assert again == stamps, "finished files are written again"
    digests.add(manifest_of(tmp_path / "out")["output"]["digest"])
    assert len(digests) == 1


def halved(feed: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Any, rows: torch.Tensor, *, start: int) -> Any:
        yield from feed(self, rows * 0.5, start=start)

    return wrong


def one_row_off(feed: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Any, rows: torch.Tensor, *, start: int) -> Any:
        rows = rows.clone()
        rows[0] = rows[-1]
        yield from feed(self, rows, start=start)

    return wrong


@pytest.mark.parametrize("fault", [halved, one_row_off], ids=["halved", "one row is another's"])
def test_a_wrong_encoder_is_caught_before_anything_is_published(
    llama: Pair,
    tmp_path: Path,
    fault: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Fp8Encoding, "feed", fault(Fp8Encoding.feed))
    base, adapter = llama
    options = ["--quantization", "fp8-dynamic", "--output", str(tmp_path / "out")]
    assert run(["merge", "--base", str(base), "--adapter", str(adapter), *options]) == 1
    error = capsys.readouterr().err
    assert "VerificationFailed" in error
    assert "proj.weight" in error
    assert not (tmp_path / "out").exists()


def refused(base: Path, adapter: Path, output: Path, quantization: str, capsys: pytest.CaptureFixture[str]) -> str:
    options = ["--quantization", quantization, "--output", str(output)]
    assert run(["merge", "--base", str(base), "--adapter", str(adapter), *options]) == 2
    assert not output.exists()
    return capsys.readouterr().err


@pytest.mark.parametrize("quantization", ["bnb-int8", "w4a16"])
def test_a_base_that_is_quantized_already_is_refused(
    llama: Pair, tmp_path: Path, quantization: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quantized = merge(llama, tmp_path / "tiny-quantized", "--quantization", "bnb-int8", weight=0)
    adapter = write_adapter(tmp_path / "adapter", quantized, targets=("embed_tokens",))
    assert "QuantizedBase" in refused(quantized, adapter, tmp_path / "out", quantization, capsys)


def test_a_model_without_linear_layers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_model(
        tmp_path / "tiny-gpt2", "gpt2", dtype=torch.bfloat16, n_embd=32, n_layer=1, n_head=2, vocab_size=64
    )
    adapter = write_small_adapter(
        tmp_path / "adapter",
        {
            "base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight": torch.ones(4, 32),
            "base_model.model.transformer.h.0.mlp.c_fc.lora_B.weight": torch.ones(128, 4),
        },
        base_model_name_or_path="tiny-gpt2",
        fan_in_fan_out=True,
    )
    error = refused(base, adapter, tmp_path / "out", "bnb-nf4", capsys)
    assert "'gpt2' has no Linear layer" in error


def test_a_width_that_no_group_fits_stays_as_it_is_and_is_named(tmp_path: Path) -> None:
    base = write_small_base(tmp_path / BASE_NAME)
    adapter = write_small_adapter(tmp_path / "adapter")
    model = merge((base, adapter), tmp_path / "out", "--quantization", "w4a16")
    found = tensors_of(model)
    assert found["model.layers.0.mlp.down_proj.weight"].dtype is torch.bfloat16
    assert "model.layers.0.self_attn.q_proj.weight_packed" in found
    ignored = json.loads((model / "config.json").read_text())["quantization_config"]["ignore"]
    assert "model.layers.1.mlp.down_proj" in ignored
    warned = [one["message"] for one in manifest_of(model)["warnings"] if one["code"] == "NotQuantized"]
    assert len(warned) == 1
    assert "48 columns wide" in warned[0]


def test_a_value_that_float16_cannot_hold_is_refused_for_int8_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_small_base(tmp_path / BASE_NAME, sharded=False)
    found = tensors_of(base)
    found["model.layers.1.self_attn.v_proj.weight"][2, 3] = 1e5
    save_file(found, base / "model.safetensors", metadata={"format": "pt"})
    adapter = write_small_adapter(tmp_path / "adapter")
    error = refused(base, adapter, tmp_path / "out", "bnb-int8", capsys)
    assert "NotFinite" in error
    assert "layers.1.self_attn.v_proj" in error
    merge((base, adapter), tmp_path / "out", "--quantization", "bnb-nf4")


def test_experts_stay_as_they_are_with_a_warning(tmp_path: Path) -> None:
    base = write_model(
        tmp_path / "tiny-mixtral", "mixtral", dtype=torch.bfloat16, hidden_size=64, intermediate_size=96,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, num_local_experts=2, vocab_size=64,
    )  # fmt: skip
    adapter = write_adapter(tmp_path / "adapter", base, targets=("q_proj", "v_proj"))
    model = merge((base, adapter), tmp_path / "out", "--quantization", "bnb-nf4")
    found = tensors_of(model)
    experts = [name for name in found if ".experts." in name]
    assert experts
    assert all(found[name].dtype is torch.bfloat16 for name in experts)
    assert found["model.layers.0.self_attn.o_proj.weight"].dtype is torch.uint8
    assert "ExpertsNotQuantized" in {one["code"] for one in manifest_of(model)["warnings"]}
    assert bool(torch.isfinite(logits_of(model)).all())


@pytest.mark.parametrize("strategy", ["slerp", "ties", "dare_ties"])
@pytest.mark.parametrize("quantization", ["bnb-nf4", "w4a16"])
def test_two_adapters_in_any_strategy_are_quantized_and_verified(
    llama: Pair, tmp_path: Path, strategy: str, quantization: str
) -> None:
    base, first = llama
    second = write_adapter(tmp_path / "second", base, targets=("down_proj", "v_proj"), size=0.05)
    options = ["--strategy", strategy, "--quantization", quantization, "--output", str(tmp_path / "out")]
    assert run(["merge", "--base", str(base), "--adapter", str(first), "--adapter", str(second), *options]) == 0
    found = manifest_of(tmp_path / "out")
    assert found["verification"]["quantizedTensors"] == 14
    assert found["deltaRetention"]["min"] == pytest.approx(1, abs=0.2)


def test_the_delta_is_in_the_quantized_weights(llama: Pair, tmp_path: Path) -> None:
    """What a change smaller than a step of the format does is still there on average."""
    touched = "model.layers.1.mlp.down_proj.weight"
    with_delta = merge(llama, tmp_path / "with", "--quantization", "w4a16")
    without = merge(llama, tmp_path / "without", "--quantization", "w4a16", weight=0)
    exact = tensors_of(merge(llama, tmp_path / "exact", "--dtype", "float32"))[touched]
    delta = exact - tensors_of(llama[0])[touched].float()
    loaded = [
        loading.load_model(model, dtype=torch.float32)[0].state_dict()[touched] for model in (with_delta, without)
    ]
    share = float(((loaded[0] - loaded[1]) * delta).sum() / delta.square().sum())
    assert math.isclose(share, 1, abs_tol=0.1)

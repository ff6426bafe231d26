"""The merge engine against float64, and everything it refuses: exit code, one sentence, nothing published."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from lora_job.cli import run
from lora_job.digest import directory_digest
from tests.job.models import BASE_NAME, CONFIG, factors, write_adapter, write_base

pytestmark = pytest.mark.engine


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / BASE_NAME)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


def merge(base: Path, adapter: Path, output: Path, *more: str) -> int:
    return run(["merge", "--base", str(base), "--adapter", str(adapter), "--output", str(output), *more])


def tensors(root: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in sorted(root.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return found


def exact(base: Path, adapter: Path, *, scale: float) -> dict[str, torch.Tensor]:
    """W + s·B@A in float64."""
    found = {name: tensor.to(torch.float64) for name, tensor in tensors(base).items()}
    parts = tensors(adapter)
    for key, b in parts.items():
        if key.endswith(".lora_B.weight"):
            a = parts[key.replace("lora_B", "lora_A")]
            name = key.removeprefix("base_model.model.").replace(".lora_B.weight", ".weight")
            found[name] = found[name] + scale * (b.to(torch.float64) @ a.to(torch.float64))
    return found


def differing(merged: torch.Tensor, wanted: torch.Tensor, *, old: torch.Tensor) -> float:
    """Share of elements that are not the nearest number of the dtype; near zero the bound is absolute (design: figures to reach)."""
    info = torch.finfo(merged.dtype)
    error = (merged.to(torch.float64) - wanted).abs()
    spacing = info.eps * 2.0 ** torch.floor(torch.log2(wanted.abs().clamp_min(info.tiny)))
    old = old.to(torch.float64)
    near_zero = 2.0**-22 * torch.maximum(old.abs(), (wanted - old).abs())
    assert bool((error <= 1.5 * spacing + near_zero).all()), "more than one unit in the last place"
    return float((error > 0.5 * spacing * (1 + 1e-9) + near_zero).to(torch.float64).mean())


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        pytest.param({}, 2.0, id="alpha / r"),
        pytest.param({"use_rslora": True}, 8 / math.sqrt(4), id="rank-stabilised: alpha / sqrt(r)"),
        pytest.param({"lora_alpha": 1}, 0.25, id="a small alpha"),
    ],
)
def test_merged_tensors_are_the_float64_result_rounded_once_and_all_others_the_bases(
    base: Path, tmp_path: Path, config: dict[str, Any], scale: float
) -> None:
    adapter = write_adapter(tmp_path / "a", **config)
    assert merge(base, adapter, tmp_path / "out") == 0
    wanted, found, before = exact(base, adapter, scale=scale), tensors(tmp_path / "out"), tensors(base)
    assert found.keys() == before.keys()
    for name, tensor in found.items():
        assert tensor.dtype == before[name].dtype
        if any(part in name for part in ("q_proj", "v_proj", "down_proj")):
            assert differing(tensor, wanted[name], old=before[name]) <= 1e-4, name
            assert not torch.equal(tensor, before[name])
        else:
            assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"), [("float32", torch.float32), ("float16", torch.float16)], ids=["float32", "float16"]
)
def test_another_dtype_of_the_output(
    base: Path, adapter: Path, tmp_path: Path, dtype: str, torch_dtype: torch.dtype
) -> None:
    assert merge(base, adapter, tmp_path / "out", "--dtype", dtype) == 0
    wanted, before = exact(base, adapter, scale=2.0), tensors(base)
    for name, tensor in tensors(tmp_path / "out").items():
        assert tensor.dtype == torch_dtype
        assert differing(tensor, wanted[name], old=before[name]) <= 5e-4


def test_a_weight_of_zero_is_the_base_bit_for_bit(base: Path, adapter: Path, tmp_path: Path) -> None:
    code = run(["merge", "--base", str(base), "--adapter", f"{adapter}=0", "--output", str(tmp_path / "out")])
    assert code == 0
    before = tensors(base)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(tmp_path / "out").items())


def test_the_number_of_workers_does_not_change_a_byte(base: Path, adapter: Path, tmp_path: Path) -> None:
    for workers in ("1", "2", "5"):
        assert merge(base, adapter, tmp_path / workers, "--workers", workers) == 0
    digests = {
        json.loads((tmp_path / workers / "merge.json").read_text())["output"]["digest"] for workers in ("1", "2", "5")
    }
    assert len(digests) == 1


def test_the_digest_of_the_manifest_is_what_verify_finds(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert merge(base, adapter, tmp_path / "out") == 0
    assert run(["verify", str(tmp_path / "out")]) == 0
    (tmp_path / "out" / "config.json").write_text("{}")
    assert run(["verify", str(tmp_path / "out")]) == 2


def test_verify_tells_the_digest_of_a_source_and_takes_it_for_no_proof(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(base)]) == 2
    assert f"its digest is {directory_digest(base)}: name the one you expect with --digest" in capsys.readouterr().err
    assert run(["verify", str(base), "--digest", directory_digest(base)]) == 0


def test_the_same_build_is_adopted_and_another_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert merge(base, adapter, tmp_path / "out") == 0
    stamp = (tmp_path / "out" / "merge.json").stat().st_mtime_ns
    assert merge(base, adapter, tmp_path / "out") == 0
    assert (tmp_path / "out" / "merge.json").stat().st_mtime_ns == stamp
    assert merge(base, adapter, tmp_path / "out", "--scale", "0.5") == 2


def test_a_build_is_published_under_its_hash(base: Path, adapter: Path, tmp_path: Path) -> None:
    code = run(["merge", "--base", str(base), "--adapter", str(adapter), "--output-root", str(tmp_path / "store")])
    assert code == 0
    (published,) = [path for path in (tmp_path / "store").iterdir() if not path.name.startswith(".")]
    manifest = json.loads((published / "merge.json").read_text())
    assert manifest["buildHash"] == published.name
    assert manifest["recipe"]["strategy"] == "linear"
    assert published.stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in published.iterdir())


def test_the_plan_is_shown_without_writing(base: Path, adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "--base", str(base), "--adapter", str(adapter), "--json"]) == 0
    assert "model.layers.0.self_attn.q_proj.weight" in capsys.readouterr().out


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def with_factor(adapter: Path, change: Callable[[dict[str, torch.Tensor]], object], **config: Any) -> None:
    parts = factors()
    change(parts)
    write_adapter(adapter, parts, **config)


FIRST_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
FIRST_B = FIRST_A.replace("lora_A", "lora_B")
Harm = Callable[[Path, Path], object]
REFUSALS: list[Any] = [
    ("WrongBase", lambda b, a: write_adapter(a, base_model_name_or_path="another"), "another", "an adapter of another base"),
    ("ShapeMismatch", lambda b, a: with_factor(a, lambda f: f.update({FIRST_B: torch.ones(8, 4)})), "q_proj", "other shapes"),
    ("TruncatedFile", lambda b, a: cut(a / "adapter_model.safetensors", 8), "adapter_model", "a truncated adapter"),
    ("TruncatedFile", lambda b, a: cut(b / "model-00001-of-00002.safetensors", 8), "model-00001", "a truncated base"),
    ("MissingShard", lambda b, a: (b / "model-00002-of-00002.safetensors").unlink(), "model-00002", "a missing shard"),
    ("NotFinite", lambda b, a: with_factor(a, lambda f: f[FIRST_A].fill_(math.nan)), "q_proj", "NaN in a factor"),
    ("RankMismatch", lambda b, a: write_adapter(a, r=8), "rank", "another rank than the config says"),
    ("SourceNotFound", lambda b, a: (a / "adapter_model.safetensors").unlink(), "adapter_model", "no weights"),
    ("MalformedConfig", lambda b, a: (b / "config.json").write_text("{"), "config.json", "a broken config"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "harm", "words"), [row[:3] for row in REFUSALS], ids=[row[3] for row in REFUSALS])
def test_refusals(
    base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str, harm: Harm, words: str
) -> None:
    harm(base, adapter)
    assert merge(base, adapter, tmp_path / "out") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert reason in error
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_an_output_inside_a_source_is_refused(base: Path, adapter: Path) -> None:
    assert merge(base, adapter, base / "out") == 2


def test_the_termination_message_says_what_the_operator_needs(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_TERMINATION_LOG", str(tmp_path / "log"))
    assert merge(base, adapter, tmp_path / "out") == 0
    message = json.loads((tmp_path / "log").read_text())
    assert (message["schemaVersion"], message["outcome"]) == (1, "Succeeded")
    assert message["artifact"]["digest"].startswith("sha256:")
    assert {"weightsBytes", "kvBytesPerToken", "maxPositionEmbeddings"} <= message["artifact"]["serving"].keys()
    assert message["figures"]["tensorsMerged"] == 6


def test_a_killed_merge_leaves_nothing_under_the_final_name_and_the_next_one_gives_the_same_bytes(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    assert merge(base, adapter, tmp_path / "whole") == 0
    command = [sys.executable, "-m", "lora_job", "merge", "--base", str(base), "--adapter", str(adapter), "--output"]
    killed = subprocess.Popen([*command, str(tmp_path / "out")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.partial/*")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    if killed.poll() is None:
        os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    if killed.returncode != 0:
        assert not (tmp_path / "out").exists()
    assert merge(base, adapter, tmp_path / "out") == 0
    digests = [
        json.loads((tmp_path / name / "merge.json").read_text())["output"]["digest"] for name in ("whole", "out")
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("size", [0.2, 0.02], ids=["a large delta", "a delta of a few units in the last place"])
def test_the_share_of_each_delta_that_its_rounding_kept_is_told(base: Path, tmp_path: Path, size: float) -> None:
    adapter = write_adapter(tmp_path / "adapter", factors(size=size))
    assert merge(base, adapter, tmp_path / "out") == 0
    told = json.loads((tmp_path / "out" / "merge.json").read_text())["deltaRetention"]
    before, wanted, found = tensors(base), exact(base, adapter, scale=2.0), tensors(tmp_path / "out")
    changed = {name: wanted[name] - tensor.double() for name, tensor in before.items()}
    kept = {
        name: 1 - float((found[name].double() - wanted[name]).norm() / delta.norm())
        for name, delta in changed.items()
        if bool(delta.any())
    }
    assert told["tensors"] == pytest.approx(kept, abs=1e-5)
    assert told["min"] == min(told["tensors"].values())
    assert sorted(told["tensors"].values())[3] == told["median"]
    assert (told["min"] > 0.95) == (size > 0.1)


def test_a_tensor_whose_delta_the_dtype_swallows_is_warned_of_by_name(base: Path, tmp_path: Path) -> None:
    parts = factors()
    for name in [name for name in parts if "layers.1.mlp.down_proj" in name]:
        parts[name] *= 1e-4
    assert merge(base, write_adapter(tmp_path / "adapter", parts), tmp_path / "out") == 0
    manifest = json.loads((tmp_path / "out" / "merge.json").read_text())
    lost = "model.layers.1.mlp.down_proj.weight"
    assert manifest["warnings"] == [{"code": "DeltaLost", "message": lost}]
    assert manifest["deltaRetention"]["min"] == manifest["deltaRetention"]["tensors"][lost] < 0.01
    assert torch.equal(tensors(tmp_path / "out")[lost], tensors(base)[lost])


def test_serving_figures_follow_from_the_config(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert merge(base, adapter, tmp_path / "out") == 0
    serving = json.loads((tmp_path / "out" / "merge.json").read_text())["serving"]
    assert (
        serving["kvBytesPerToken"]
        == 2 * CONFIG["num_hidden_layers"] * CONFIG["num_key_value_heads"] * CONFIG["head_dim"] * 2
    )
    assert serving["maxPositionEmbeddings"] == 128

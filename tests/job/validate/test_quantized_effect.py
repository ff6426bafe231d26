"""The effect of a quantized model's adapter: told from the effect of its quantization, because the base is compared in the same format."""

from pathlib import Path

import pytest

from lora_job.cli import run
from lora_job.digest import directory_digest
from lora_job.validate.behaviour import measure_logits
from lora_job.validate.gates import Effect, Gate, Observed, Policy, Status, effect_gate
from lora_job.validate.logits import Divergence
from lora_job.validate.options import Options
from lora_job.validate.recipe import read_manifest
from lora_job.validate.selection import Mode, depth_of, select
from lora_job.validate.sources import resolve
from lora_job.validate.suite import load

from .tiny import Silent, Tiny

pytestmark = pytest.mark.engine
FULL = pytest.mark.full
FORMATS = ["bnb-nf4", pytest.param("bnb-int8", marks=FULL), "fp8-dynamic", pytest.param("w4a16", marks=FULL)]


def merged(tiny: Tiny, target: Path, quantization: str, *, weight: float) -> Path:
    """By the engine, so that the manifest tells the format."""
    sources = ["--base", str(tiny.base), "--adapter", f"{tiny.adapter}={weight}", "--allow-unverified-base"]
    assert run(["merge", *sources, "--output", str(target), "--quantization", quantization]) == 0
    return target


def divergence(model: Path, tiny: Tiny) -> Divergence:
    import torch  # noqa: PLC0415 - takes seconds

    depth = depth_of(Mode.BASIC, test_query_count=1)
    manifest = read_manifest(model)
    found, _ = measure_logits(
        Options(model=model, base=tiny.base),
        resolve(base=tiny.base, adapters=(), manifest=manifest, digest=directory_digest),
        select(load(()).items, depth=depth),
        depth=depth,
        device=torch.device("cpu"),
        progress=Silent(),
    )
    assert found is not None
    return found


def gate(found: Divergence) -> Gate:
    effect = Effect(ratio=found.effect_ratio, merged_kl=found.merged_from_base, noise_floor=found.noise_floor)
    nothing = Observed(
        artifact_problems=(), finite_problems=(), fidelity_problems=(), fidelity_checked=0, overall=None, basic=None,
        domain=None, safety=None, paired_safety=None, effect=effect,
    )  # fmt: skip
    return effect_gate(nothing, Policy())


@pytest.mark.parametrize("quantization", FORMATS)
def test_a_correct_quantized_merge_has_the_live_adapters_effect(tiny: Tiny, tmp_path: Path, quantization: str) -> None:
    found = divergence(merged(tiny, tmp_path / "m", quantization, weight=1), tiny)
    assert found.effect_ratio == pytest.approx(1, abs=0.1)
    assert gate(found).status is Status.PASS


@pytest.mark.parametrize("quantization", FORMATS)
def test_a_quantized_model_that_forgot_its_adapter_has_none(tiny: Tiny, tmp_path: Path, quantization: str) -> None:
    """Its numbers differ from the base's, by the quantization alone."""
    found = divergence(merged(tiny, tmp_path / "m", quantization, weight=0), tiny)
    assert found.merged_from_base <= found.noise_floor
    assert gate(found).status is Status.FAIL
    assert "the adapter has no effect" in gate(found).message

"""A base too big for the device, in plain numbers, runs in its candidate's quantization; a processor plays the small device here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_job.cli import run
from lora_job.validate import loading
from lora_job.validate.behaviour import Behaviour, run_models
from lora_job.validate.fidelity import Checkpoint, expect
from lora_job.validate.options import Options
from lora_job.validate.placement import ROOM_FACTOR, ROOM_TO_RUN, Placement
from lora_job.validate.recipe import Recipe
from lora_job.validate.same_format import through_the_format
from lora_job.validate.selection import Mode, depth_of, select
from lora_job.validate.sources import Compared
from lora_job.validate.suite import load

from .tiny import Silent, Tiny

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=["bnb-nf4", "bnb-int8"])
def quantization(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(tiny: Tiny, quantization: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quantized") / quantization
    sources = ["--base", str(tiny.base), "--adapter", str(tiny.adapter), "--allow-unverified-base"]
    assert run(["merge", *sources, "--output", str(target), "--quantization", quantization]) == 0
    return target


def behaviour(tiny: Tiny, model: Path, quantization: str, *, progress: Silent) -> Behaviour:
    """A few items are enough: how the two are run is the question."""
    depth = replace(depth_of(Mode.BASIC, test_query_count=1), safety=2, drift=1)
    compared = Compared(
        base=tiny.base, base_digest="sha256:b", adapters=(tiny.adapter,), adapter_digests=("",),
        recipe=Recipe(quantization=quantization), notes=(),
    )  # fmt: skip
    options = Options(model=model, base=tiny.base, iterations=1)
    return run_models(options, compared, select(load(()).items, depth=depth), depth=depth, progress=progress)


@pytest.fixture
def device_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the machine have a device with room for so many bytes of weights."""

    def set_room(weights: float) -> None:
        monkeypatch.setattr(loading, "free_memory", lambda: ROOM_TO_RUN + int(weights * ROOM_FACTOR) + 1)

    return set_room


def test_both_run_quantized_where_the_plain_base_has_no_room(
    tiny: Tiny, model: Path, quantization: str, device_with: Callable[[float], None]
) -> None:
    plain, stored = Checkpoint(tiny.base).data_bytes(), Checkpoint(model).data_bytes()
    assert stored < plain
    device_with((plain + stored) / 2)
    progress = Silent()
    found = behaviour(tiny, model, quantization, progress=progress)
    assert found.placement == Placement(on_device=True, together=False, quantized=True)
    assert any("runs in the model's quantization" in note for note in progress.notes)
    assert all(row.base is not None for row in found.rows)
    assert found.base_speed is not None
    assert found.candidate_speed is not None
    assert found.base_speed.weights_bytes == pytest.approx(found.candidate_speed.weights_bytes, rel=0.01)


def test_a_plain_base_that_fits_stays_plain(
    tiny: Tiny, model: Path, quantization: str, device_with: Callable[[float], None]
) -> None:
    device_with(2 * Checkpoint(tiny.base).data_bytes())
    found = behaviour(tiny, model, quantization, progress=Silent())
    assert found.placement == Placement(on_device=True, together=True, quantized=False)


def test_the_base_is_brought_to_the_candidates_very_numbers(tiny: Tiny, model: Path, quantization: str) -> None:
    """bitsandbytes' own arithmetic against the same weights read back as plain numbers."""
    native = loading.load_quantized(tiny.base, like=model)
    weights = through_the_format(tiny.base, expect(tiny.base, [tiny.adapter], Recipe(quantization=quantization)))
    plain = loading.load(tiny.base, dtype=torch.float32, device=torch.device("cpu"), weights=weights)
    assert native.problems == ()
    assert any("bitsandbytes" in type(module).__module__ for module in native.subject.model.modules())
    ids = torch.tensor([plain.subject.tokenizer.encode("A bond pays interest until it matures.")])
    with torch.inference_mode():
        ours, theirs = (one.subject.model(ids).logits.float() for one in (native, plain))
    assert float((ours - theirs).norm() / theirs.norm()) < 0.03

"""One case from a random model to a merged one: base saved, adapter made and saved by PEFT, merged by `lora-job merge`."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model

from lora_job.cli import run
from tests.job.cases import oracle
from tests.job.cases.families import FAMILIES, load, logits, new_model, save_base

ALLOWED = {torch.bfloat16: 1e-4, torch.float16: 5e-4, torch.float32: 1e-5}
Before = Callable[[Any], object]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is there after a merge."""

    family: str
    live: Any
    """The PEFT model in float32."""
    kind: Any
    base: Path
    adapter: Path
    output: Path

    def reloaded(self, *, kind: Any = None) -> Any:
        """The merged model as transformers loads it."""
        return load(self.output, kind=kind or self.kind)

    def check_tensors(self, exact: oracle.Tensors) -> None:
        """`exact` within the bounds of the dtype, every other tensor of the base bit for bit, and nothing else."""
        found, before = oracle.read(self.output), oracle.read(self.base)
        assert found.keys() == before.keys() | exact.keys()
        different, total = 0.0, 0
        for name, tensor in found.items():
            if name not in exact:
                assert torch.equal(tensor, before[name]), name
                continue
            start = before.get(name)
            comparable = start if start is not None and start.shape == tensor.shape else torch.zeros_like(tensor)
            assert tensor.shape == exact[name].shape, name
            different += oracle.misses(tensor, exact[name], before=comparable) * tensor.numel()
            total += tensor.numel()
        assert total
        assert different / total <= max(ALLOWED[tensor.dtype], 1.5 / total)

    def check_logits(self) -> None:
        """The merged model says what the base with the live adapter says."""
        ours, theirs = logits(self.reloaded()), logits(self.live)
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4), float((ours - theirs).abs().max())
        unadapted = logits(load(self.base, kind=self.kind))
        same = unadapted.shape == theirs.shape and torch.allclose(unadapted, theirs, rtol=1e-2, atol=1e-2)
        assert not same, "the adapter does nothing"


def randomised_adapter(live: Any, *, seed: int = 5) -> Any:
    """Every trained number drawn anew, so that nothing is zero, one, or the base's."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in live.named_parameters():
            if not parameter.requires_grad:
                continue
            drawn = 0.2 * torch.randn(parameter.shape, generator=draw)
            parameter.copy_(1.0 + drawn.abs() if "magnitude" in name else drawn)
    return live.eval()


def adapted(model: Any, config: LoraConfig, *, folder: Path, seed: int = 5) -> Any:
    """A live PEFT model with random factors, saved to a folder."""
    # PEFT tells about tied weights and saved embeddings; what comes of it is what is tested here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        live = randomised_adapter(get_peft_model(model, config), seed=seed)
        live.save_pretrained(folder)
    return live


def make(
    tmp_path: Path,
    family: str,
    config: dict[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
    sharded: bool = False,
    kind: Any = transformers.AutoModelForCausalLM,
    before: Before | None = None,
    options: tuple[str, ...] = (),
    **settings: Any,
) -> Case:
    """`before` changes the live base model before the adapter is added to it; `settings` go to the model's config."""
    base, adapter, output = tmp_path / "tiny-base", tmp_path / "adapter", tmp_path / "out"
    model = save_base(new_model(family, kind=kind, **settings), base, dtype=dtype, sharded=sharded)
    if before is not None:
        before(model)
    live = adapted(model, lora(family, config), folder=adapter)
    found = Case(family=family, live=live, kind=type(model), base=base, adapter=adapter, output=output)
    assert merge(found, *options) == 0
    return found


def lora(family: str, config: dict[str, Any]) -> LoraConfig:
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": list(FAMILIES[family].targets)}
    return LoraConfig(**{**settings, **config})


def merge(case: Case, *options: str) -> int:
    paths = ["--base", str(case.base), "--adapter", str(case.adapter), "--output", str(case.output)]
    return run(["merge", *paths, *options])

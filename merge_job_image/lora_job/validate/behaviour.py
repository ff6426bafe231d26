"""What running the models shows: divergence of predictions, answers, speed.

    load → finite? → logits (float32 where small) → answers (the base's from the cache) → speed in turns

A model that cannot be loaded or computes NaN is not asked anything. Only the cache of base answers is written here.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch

from lora_job.outcome import Refused
from lora_job.validate import baseline, fidelity, harness, loading, logits, performance
from lora_job.validate.comparison_texts import probe_prompts, texts_for
from lora_job.validate.fidelity import Checkpoint
from lora_job.validate.harness import Subject
from lora_job.validate.judge import Answer, Row, judge_rows
from lora_job.validate.live_adapter import live_adapter
from lora_job.validate.loading import Loaded, NotLoadable
from lora_job.validate.logits import Divergence, Probe
from lora_job.validate.options import Options
from lora_job.validate.performance import Speed
from lora_job.validate.placement import AT_EASE, Placement
from lora_job.validate.same_format import through_the_format
from lora_job.validate.selection import Depth, Mode
from lora_job.validate.sources import Compared
from lora_job.validate.suite import Item

FINITE_PROMPTS = 2
DISTRIBUTION_RUNS = 30
PACKAGES = ("torch", "transformers", "peft", "lm-eval", "safetensors")

Tick = Callable[[int], None]


class Progress(Protocol):
    """Where a run says how far it is."""

    def stage(self, name: str, *, total: int, unit: str) -> AbstractContextManager[Tick]:
        """One stage of known length; the yielded function is told what was done since the last call."""

    def note(self, message: str) -> None:
        """One sentence for a person."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What running the model showed."""

    rows: list[Row] = field(default_factory=list)
    divergence: Divergence | None = None
    probes: tuple[Probe, ...] = ()
    candidate_speed: Speed | None = None
    base_speed: Speed | None = None
    dtype: str = ""
    placement: Placement | None = None
    """How the two models were run; None where one ran alone or none did."""
    non_finite: list[str] = field(default_factory=list)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def versions() -> dict[str, str]:
    """What the results depend on besides the models."""
    return {name: version(name) for name in PACKAGES}


def _base_in_the_format(compared: Compared) -> dict[str, torch.Tensor]:
    """The base's weights as the candidate's format holds them; none where the candidate is not quantized."""
    if compared.base is None or compared.recipe.quantization == "none":
        return {}
    try:
        expected = fidelity.expect(compared.base, compared.adapters, compared.recipe, digests=compared.adapter_digests)
    except Refused:
        return {}  # what does not fit the base has no plan; the fidelity gate has said so
    return through_the_format(compared.base, expected)


def measure_logits(
    options: Options,
    compared: Compared,
    chosen: Mapping[str, Sequence[Item]],
    *,
    depth: Depth,
    device: torch.device,
    progress: Progress,
) -> tuple[Divergence | None, tuple[Probe, ...]]:
    """Divergences and probes, in float32 where both models are small enough; needs a base."""
    if compared.base is None:
        return None, ()
    merged = loading.load(options.model, device=device)
    dtype = (
        torch.float32 if loading.parameter_count(merged.subject.model) <= loading.FLOAT32_LOGITS_LIMIT else merged.dtype
    )
    merged.subject.model.to(dtype)
    base = loading.load(compared.base, dtype=dtype, device=device, weights=_base_in_the_format(compared))
    use_template = base.subject.has_template
    texts = texts_for(chosen, subject=base.subject, use_template=use_template, count=depth.prompts)
    prompts = probe_prompts(chosen)
    # Probes first: comparing leaves parts of the adapter in the base.
    with progress.stage("probes", total=len(prompts), unit="prompts") as tick:
        probes = logits.find_probes(
            base=base.subject, merged=merged.subject, prompts=prompts, use_template=use_template, tick=tick
        )
    with progress.stage("logits", total=len(texts), unit="prompts") as tick:
        divergence = logits.compare(
            base=base.subject,
            merged=merged.subject,
            live=live_adapter(compared),
            texts=texts,
            stored=Checkpoint(options.model).stored_dtype(),
            tick=tick,
        )
    return divergence, probes


_Open = Callable[[Path], Loaded]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The items of a run and how they are put; asks either model the same."""

    options: Options
    compared: Compared
    chosen: Mapping[str, Sequence[Item]]
    use_template: bool
    rotations: int | None
    encoding: str
    """The format that both calculate in; "" for plain numbers."""
    progress: Progress

    @property
    def items(self) -> list[Item]:
        return [item for items in self.chosen.values() for item in items]

    def of_candidate(self, candidate: Loaded) -> dict[str, Answer]:
        return self._ask(candidate.subject, name="answers")

    def of_base(self, base: Loaded) -> dict[str, Answer]:
        """From the cache where it knows them."""
        folder = self.options.cache
        if folder is None:
            return self._ask(base.subject, name="base answers")
        items = self.items
        key = baseline.key_of(base_digest=self.compared.base_digest, items=items, environment=self._environment(base))
        cached = baseline.read(folder, key, ids=[item.origin.id for item in items])
        if cached is not None:
            self.progress.note("answers of the base model are taken from the cache")
            return cached
        answers = self._ask(base.subject, name="base answers")
        problem = baseline.write(folder, key, answers)
        if problem:
            self.progress.note(problem)
        return answers

    def _environment(self, base: Loaded) -> dict[str, str]:
        return versions() | {
            "dtype": str(base.dtype),
            "device": base.subject.model.device.type,
            "threads": str(torch.get_num_threads()),
            "template": str(self.use_template),
            "rotations": str(self.rotations),
            "encoding": self.encoding,
        }

    def _ask(self, subject: Subject, *, name: str) -> dict[str, Answer]:
        """Task by task, so that a task's answers do not depend on which other tasks are asked."""
        answers: dict[str, Answer] = {}
        total = harness.count_steps(self.items, rotations=self.rotations)
        with self.progress.stage(name, total=total, unit="items") as tick:
            for items in self.chosen.values():
                answers |= harness.ask(
                    subject, items, use_template=self.use_template, rotations=self.rotations, tick=tick
                )
        return answers


def _iterations(options: Options) -> int:
    """A latency distribution needs more points than a ratio of means."""
    return max(options.iterations, DISTRIBUTION_RUNS) if options.mode is Mode.COMPREHENSIVE else options.iterations


def _run_together(
    options: Options, candidate: Loaded, base: Loaded | None, asked: _Asked, *, progress: Progress
) -> Behaviour:
    """Tasks and speed with both models in memory: what slows the machine down slows down both."""
    answers = asked.of_candidate(candidate)
    base_answers = asked.of_base(base) if base is not None else None
    subjects = [candidate.subject, *([base.subject] if base is not None else [])]
    iterations = _iterations(options)
    with progress.stage("speed", total=iterations + 1, unit="pairs") as tick:
        speeds = performance.measure(subjects, iterations=iterations, tick=tick)
    return Behaviour(
        rows=judge_rows(asked.chosen, candidate=answers, base=base_answers),
        candidate_speed=speeds[0],
        base_speed=speeds[1] if base is not None else None,
        dtype=_dtype_name(candidate),
    )


def _run_apart(options: Options, base_path: Path, asked: _Asked, *, open_: _Open, progress: Progress) -> Behaviour:
    """One model after the other, where a device has no room for two."""
    iterations = _iterations(options)

    def alone(
        path: Path, ask: Callable[[Loaded], dict[str, Answer]], stage: str
    ) -> tuple[dict[str, Answer], Speed, str]:
        loaded = open_(path)
        answers = ask(loaded)
        with progress.stage(stage, total=iterations + 1, unit="answers") as tick:
            speed = performance.measure([loaded.subject], iterations=iterations, tick=tick)[0]
        dtype = _dtype_name(loaded)
        del loaded
        _free()
        return answers, speed, dtype

    answers, speed, dtype = alone(options.model, asked.of_candidate, "speed")
    base_answers, base_speed, _ = alone(base_path, asked.of_base, "base speed")
    return Behaviour(
        rows=judge_rows(asked.chosen, candidate=answers, base=base_answers),
        candidate_speed=speed,
        base_speed=base_speed,
        dtype=dtype,
    )


def _dtype_name(loaded: Loaded) -> str:
    return str(loaded.dtype).removeprefix("torch.")


def run_models(
    options: Options, compared: Compared, chosen: Mapping[str, Sequence[Item]], *, depth: Depth, progress: Progress
) -> Behaviour:
    """Tasks and speed of the candidate and, where there is one, its base."""
    placement = loading.placement_of(options.model, base=compared.base) if compared.base is not None else None
    quantized = placement is not None and placement.quantized
    tokenizer = loading.load_tokenizer(compared.base or options.model)
    asked = _Asked(
        options=options,
        compared=compared,
        chosen=chosen,
        use_template=bool(getattr(tokenizer, "chat_template", None)),
        rotations=depth.rotations,
        encoding=loading.encoding_in(options.model) if quantized else "",
        progress=progress,
    )
    if compared.base is None or placement is None:
        return _run_together(options, loading.load(options.model), None, asked, progress=progress)
    if placement.note:
        progress.note(placement.note)
    device = loading.best_device() if placement.on_device else torch.device("cpu")

    def open_(path: Path) -> Loaded:
        return loading.load_quantized(path, like=options.model) if quantized else loading.load(path, device=device)

    if placement.together:
        found = _run_together(options, open_(options.model), open_(compared.base), asked, progress=progress)
    else:
        found = _run_apart(options, compared.base, asked, open_=open_, progress=progress)
    return replace(found, placement=placement)


def measure_behaviour(
    options: Options,
    compared: Compared,
    chosen: Mapping[str, Sequence[Item]],
    *,
    depth: Depth,
    progress: Progress,
) -> tuple[Behaviour, list[str]]:
    """(what running showed, problems of loading)."""
    placement = loading.placement_of(options.model, base=compared.base or options.model)
    # The device may have no room for even one of them in plain numbers; main memory was asked for with two in mind.
    device = loading.best_device() if placement == AT_EASE else torch.device("cpu")
    try:
        candidate = loading.load(options.model, device=device)
    except NotLoadable as error:
        return Behaviour(), [str(error)]
    prompts = probe_prompts(chosen)[:FINITE_PROMPTS] or ["1 + 1 ="]
    if not logits.all_finite(candidate.subject, prompts):
        return Behaviour(non_finite=["the logits of a plain prompt are NaN or Inf"]), list(candidate.problems)
    if candidate.problems:
        return Behaviour(), list(candidate.problems)
    del candidate
    _free()
    divergence, probes = measure_logits(options, compared, chosen, depth=depth, device=device, progress=progress)
    _free()
    behaviour = run_models(options, compared, chosen, depth=depth, progress=progress)
    return replace(behaviour, divergence=divergence, probes=probes), []

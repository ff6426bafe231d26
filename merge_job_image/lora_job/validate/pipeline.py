"""One validation from directories to measurements, stage by stage.

    sources → files → tensors → load → logits (float32) → tasks (base from cache) → speed → gates → report

The order is from cheap and decisive to costly. A model that cannot be loaded or computes NaN is not asked anything: its
report says so, its scores are 0. Nothing is written here except the cache of base results.
"""

import gc
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch

from lora_job.outcome import Refused
from lora_job.validate import artifact, baseline, fidelity, harness, loading, logits, performance, safety_findings
from lora_job.validate import score as scoring
from lora_job.validate.fidelity import Checkpoint, Fidelity
from lora_job.validate.gates import Effect, Observed, decide_gates, hard_gate_failed, is_deployable
from lora_job.validate.harness import Subject
from lora_job.validate.judge import Answer, Row, judge_rows
from lora_job.validate.loading import Loaded, NotLoadable
from lora_job.validate.logits import Divergence, Probe
from lora_job.validate.options import Options
from lora_job.validate.performance import Speed
from lora_job.validate.prompts import letter_questions, numeric_prompt
from lora_job.validate.recipe import read_manifest
from lora_job.validate.recommendations import Findings, recommend
from lora_job.validate.report import Identity, Measured
from lora_job.validate.score import Dimension, Scored
from lora_job.validate.selection import Depth, Mode, depth_of, select
from lora_job.validate.sources import Compared, resolve
from lora_job.validate.suite import Choice, Generate, Item, Numeric, Safety, Suite, SuiteSet, Text, load

FINITE_PROMPTS = 2
PROBE_CANDIDATES = 40
PACKAGES = ("torch", "transformers", "peft", "lm-eval", "safetensors")

Tick = Callable[[int], None]


class Progress(Protocol):
    """Where a run says how far it is."""

    def stage(self, name: str, *, total: int, unit: str) -> AbstractContextManager[Tick]:
        """One stage of known length; the yielded function is told what was done since the last call."""

    def note(self, message: str) -> None:
        """One sentence for a person."""


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """What reading all tensors showed; `fidelity` None without sources to recompute from."""

    non_finite: list[str]
    fidelity: Fidelity | None
    problems: list[str]
    """Checkpoints that cannot be read at all."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What running the model showed."""

    rows: list[Row] = field(default_factory=list)
    divergence: Divergence | None = None
    probes: tuple[Probe, ...] = ()
    candidate_speed: Speed | None = None
    base_speed: Speed | None = None
    dtype: str = ""
    non_finite: list[str] = field(default_factory=list)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _allowed_template(options: Options, manifest_digest: str) -> Callable[[str], bool]:
    allowed = {digest.removeprefix("sha256:") for digest in (options.allowed_template, manifest_digest) if digest}

    def is_allowed(template: str) -> bool:
        return hashlib.sha256(template.encode()).hexdigest() in allowed

    return is_allowed


def _embedding_rows(model: Path) -> int | None:
    config, _ = artifact.read_config(model)
    rows = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    return rows if isinstance(rows, int) else None


def check_artifact(options: Options, compared: Compared, *, allowed_template: str) -> list[str]:
    """Problems of files, configuration, tokenizer and template."""
    model = options.model
    return [
        *artifact.check_files(model),
        *artifact.check_config(model),
        *artifact.check_tokenizer(
            model,
            base=compared.base,
            adapters=compared.adapters,
            embedding_rows=_embedding_rows(model),
            allowed=_allowed_template(options, allowed_template),
        ),
    ]


def check_tensors(options: Options, compared: Compared, *, progress: Progress) -> Tensors:
    """Finite and faithful, tensor by tensor."""
    try:
        model = Checkpoint(options.model)
    except (Refused, OSError) as error:
        return Tensors(non_finite=[], fidelity=None, problems=[f"a safetensors file cannot be read: {error}"])
    with progress.stage("finite", total=len(model.names), unit="tensors") as tick:
        bad = fidelity.non_finite_tensors(model, tick=tick)
    if compared.base is None or not compared.adapters:
        return Tensors(non_finite=bad, fidelity=None, problems=[])
    try:
        expected = fidelity.expect(compared.base, compared.adapters, compared.recipe, digests=compared.adapter_digests)
    except Refused as refused:
        if refused.reason not in fidelity.MISFITS:
            raise
        return Tensors(non_finite=bad, fidelity=fidelity.impossible(str(refused)), problems=[])
    with progress.stage("fidelity", total=len(expected.plan.steps), unit="tensors") as tick:
        found = fidelity.check(model=model, expected=expected, tick=tick)
    return Tensors(non_finite=bad, fidelity=found, problems=[])


def _texts(chosen: Mapping[str, Sequence[Item]], *, subject: Subject, use_template: bool, count: int) -> list[str]:
    """Texts for the logits: prompts with a continuation, and plain texts, spread over the suites."""
    found = []
    for item in _interleaved(chosen):
        match item:
            case Safety():
                prompt = harness.render_prompt(subject.tokenizer, item.prompt, use_template=use_template)
                found.append(prompt + item.safe)
            case Text():
                found.append(item.text)
            case Choice():
                asked = letter_questions(item)[0]
                prompt = harness.render_prompt(subject.tokenizer, asked.prompt, use_template=use_template)
                found.append(prompt + asked.letters[asked.gold])
            case Numeric() | Generate():
                continue
    return found[:count]


def _interleaved(chosen: Mapping[str, Sequence[Item]]) -> list[Item]:
    longest = max((len(items) for items in chosen.values()), default=0)
    return [items[place] for place in range(longest) for items in chosen.values() if place < len(items)]


def _probe_prompts(chosen: Mapping[str, Sequence[Item]]) -> list[str]:
    found = []
    for item in _interleaved({task: items for task, items in chosen.items() if task != Suite.SAFETY}):
        match item:
            case Choice():
                found.append(letter_questions(item)[0].prompt)
            case Numeric():
                found.append(numeric_prompt(item))
            case Generate():
                found.append(item.prompt)
            case Safety() | Text():
                continue
    short = [prompt for prompt in found if len(prompt.encode()) <= logits.MAX_PROBE_BYTES]
    return short[:PROBE_CANDIDATES]


def _all_items(chosen: Mapping[str, Sequence[Item]]) -> list[Item]:
    return [item for items in chosen.values() for item in items]


def _ask(
    subject: Subject, chosen: Mapping[str, Sequence[Item]], *, name: str, use_template: bool, progress: Progress
) -> dict[str, Answer]:
    """Task by task, so that a task's answers do not depend on which other tasks are asked."""
    answers: dict[str, Answer] = {}
    with progress.stage(name, total=harness.count_steps(_all_items(chosen)), unit="items") as tick:
        for items in chosen.values():
            answers |= harness.ask(subject, items, use_template=use_template, tick=tick)
    return answers


def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _base_answers(
    base: Loaded,
    chosen: Mapping[str, Sequence[Item]],
    *,
    options: Options,
    compared: Compared,
    use_template: bool,
    progress: Progress,
) -> dict[str, Answer]:
    items = _all_items(chosen)
    environment = _versions() | {
        "dtype": str(base.dtype),
        "device": base.subject.model.device.type,
        "threads": str(torch.get_num_threads()),
        "template": str(use_template),
    }
    key = baseline.key_of(base_digest=compared.base_digest, items=items, environment=environment)
    if options.cache is not None:
        cached = baseline.read(options.cache, key, ids=[item.origin.id for item in items])
        if cached is not None:
            progress.note("answers of the base model are taken from the cache")
            return cached
    answers = _ask(base.subject, chosen, name="base answers", use_template=use_template, progress=progress)
    if options.cache is not None:
        problem = baseline.write(options.cache, key, answers)
        if problem:
            progress.note(problem)
    return answers


def measure_logits(
    options: Options,
    compared: Compared,
    chosen: Mapping[str, Sequence[Item]],
    *,
    depth: Depth,
    progress: Progress,
) -> tuple[Divergence | None, tuple[Probe, ...]]:
    """Divergences and probes, in float32 where both models are small enough; needs a base."""
    if compared.base is None:
        return None, ()
    merged = loading.load(options.model)
    dtype = (
        torch.float32 if loading.parameter_count(merged.subject.model) <= loading.FLOAT32_LOGITS_LIMIT else merged.dtype
    )
    merged.subject.model.to(dtype)
    base = loading.load(compared.base, dtype=dtype)
    use_template = base.subject.has_template
    texts = _texts(chosen, subject=base.subject, use_template=use_template, count=depth.prompts)
    adapter = compared.adapters[0] if compared.adapters and compared.recipe.has_one_live_adapter else None
    prompts = _probe_prompts(chosen)
    with progress.stage("logits", total=len(texts), unit="prompts") as tick:
        divergence = logits.compare(
            base=base.subject,
            merged=merged.subject,
            adapter=adapter,
            texts=texts,
            stored=Checkpoint(options.model).stored_dtype(),
            tick=tick,
        )
    with progress.stage("probes", total=len(prompts), unit="prompts") as tick:
        probes = logits.find_probes(
            base=base.subject, merged=merged.subject, prompts=prompts, use_template=use_template, tick=tick
        )
    return divergence, probes


def _run_model(
    options: Options,
    compared: Compared,
    candidate: Loaded,
    chosen: Mapping[str, Sequence[Item]],
    *,
    progress: Progress,
) -> Behaviour:
    """Tasks and speed, with both models in memory."""
    base = loading.load(compared.base) if compared.base is not None else None
    template_of = base.subject if base is not None else candidate.subject
    use_template = template_of.has_template
    answers = _ask(candidate.subject, chosen, name="answers", use_template=use_template, progress=progress)
    base_answers = None
    if base is not None:
        base_answers = _base_answers(
            base, chosen, options=options, compared=compared, use_template=use_template, progress=progress
        )
    subjects = [candidate.subject, *([base.subject] if base is not None else [])]
    with progress.stage("speed", total=options.iterations + 1, unit="pairs") as tick:
        speeds = performance.measure(subjects, iterations=options.iterations, tick=tick)
    return Behaviour(
        rows=judge_rows(chosen, candidate=answers, base=base_answers),
        candidate_speed=speeds[0],
        base_speed=speeds[1] if base is not None else None,
        dtype=str(candidate.dtype).removeprefix("torch."),
    )


def measure_behaviour(
    options: Options,
    compared: Compared,
    chosen: Mapping[str, Sequence[Item]],
    *,
    depth: Depth,
    progress: Progress,
) -> tuple[Behaviour, list[str]]:
    """(what running showed, problems of loading)."""
    try:
        candidate = loading.load(options.model)
    except NotLoadable as error:
        return Behaviour(), [str(error)]
    prompts = _probe_prompts(chosen)[:FINITE_PROMPTS] or ["1 + 1 ="]
    if not logits.all_finite(candidate.subject, prompts):
        return Behaviour(non_finite=["the logits of a plain prompt are NaN or Inf"]), list(candidate.problems)
    if candidate.problems:
        return Behaviour(), list(candidate.problems)
    del candidate
    _free()
    divergence, probes = measure_logits(options, compared, chosen, depth=depth, progress=progress)
    _free()
    candidate = loading.load(options.model)
    behaviour = _run_model(options, compared, candidate, chosen, progress=progress)
    return (
        Behaviour(
            rows=behaviour.rows,
            divergence=divergence,
            probes=probes,
            candidate_speed=behaviour.candidate_speed,
            base_speed=behaviour.base_speed,
            dtype=behaviour.dtype,
        ),
        [],
    )


def score_behaviour(behaviour: Behaviour, *, weights: Mapping[Dimension, float]) -> dict[Dimension, Scored]:
    """All four dimensions."""
    ratios: list[float] = []
    if behaviour.candidate_speed is not None and behaviour.base_speed is not None:
        ratios = performance.ratios(behaviour.candidate_speed, behaviour.base_speed)
    scored = {
        name: scoring.score_items(behaviour.rows, dimension=name, weight=weights[name]) for name in scoring.COMPONENTS
    }
    return scored | {Dimension.PERFORMANCE: scoring.score_performance(ratios, weight=weights[Dimension.PERFORMANCE])}


def _drift(rows: Sequence[Row]) -> tuple[float, float | None] | None:
    texts = scoring.of_suite(rows, Suite.DRIFT)
    if not texts:
        return None
    own = sum(row.candidate.score for row in texts) / len(texts)
    theirs = [row.base.score for row in texts if row.base is not None]
    return own, (sum(theirs) / len(theirs) if theirs else None)


def _effect(divergence: Divergence | None) -> Effect | None:
    if divergence is None:
        return None
    return Effect(
        ratio=divergence.effect_ratio, merged_kl=divergence.merged_from_base, noise_floor=divergence.noise_floor
    )


def _is_expired(suite: SuiteSet, today: date) -> bool:
    return bool(suite.valid_until) and date.fromisoformat(suite.valid_until) < today


def validate(options: Options, *, digest: Callable[[Path], str], today: date, progress: Progress) -> Measured:
    """Measure and decide. `digest` gives a directory's digest; `today` decides whether a suite is past its date."""
    if not options.model.is_dir():
        raise Refused(
            "ModelNotFound", f"--model {options.model}: expected a model directory, found nothing of that kind"
        )
    suite = load(options.suites)
    depth = depth_of(options.mode, test_query_count=options.test_query_count)
    chosen = select(suite.items, depth=depth, first=suite.user_ids)
    manifest = read_manifest(options.model)
    with progress.stage("digests", total=1, unit="models") as tick:
        own_digest = digest(options.model)
        compared = resolve(base=options.base, adapters=options.adapters, manifest=manifest, digest=digest)
        tick(1)
    for note in compared.notes:
        progress.note(note)
    problems = check_artifact(options, compared, allowed_template=manifest.allowed_template if manifest else "")
    if manifest is not None and manifest.digest and manifest.digest != own_digest:
        problems.append(f"the files changed since the merge: merge.json says {manifest.digest}, found {own_digest}")
    tensors = check_tensors(options, compared, progress=progress)
    problems += tensors.problems
    behaviour = Behaviour()
    if not problems and not tensors.non_finite:
        behaviour, more = measure_behaviour(options, compared, chosen, depth=depth, progress=progress)
        problems += more
    return decide(
        options,
        compared,
        suite=suite,
        model=Identity(path=str(options.model), digest=own_digest),
        problems=problems,
        tensors=tensors,
        behaviour=behaviour,
        today=today,
    )


def decide(
    options: Options,
    compared: Compared,
    *,
    suite: SuiteSet,
    model: Identity,
    problems: Sequence[str],
    tensors: Tensors,
    behaviour: Behaviour,
    today: date,
) -> Measured:
    """Scores, gates, grade and advice from what was measured."""
    dimensions = score_behaviour(behaviour, weights=options.weights)
    overall = scoring.combine(dimensions)
    safety_rows = scoring.of_suite(behaviour.rows, Suite.SAFETY)
    ran = bool(behaviour.rows)
    finite = [f"{name} holds NaN or Inf" for name in tensors.non_finite] + behaviour.non_finite
    gates = decide_gates(
        Observed(
            artifact_problems=problems,
            finite_problems=finite if finite or ran else None,
            fidelity_problems=tensors.fidelity.problems if tensors.fidelity else None,
            fidelity_checked=tensors.fidelity.checked if tensors.fidelity else 0,
            overall=(overall.score, overall.lower) if ran else None,
            basic=dimensions[Dimension.BASIC],
            domain=dimensions[Dimension.DOMAIN],
            safety=dimensions[Dimension.SAFETY],
            paired_safety=safety_findings.compare(safety_rows),
            effect=_effect(behaviour.divergence),
        ),
        options.policy,
    )
    drift = _drift(behaviour.rows)
    calibration = scoring.calibration_error(behaviour.rows) if options.mode is Mode.COMPREHENSIVE else None
    findings = Findings(
        gates=gates,
        dimensions=dimensions,
        paired=compared.base is not None,
        retention_min=tensors.fidelity.retention_min if tensors.fidelity else None,
        drift_ratio=drift[0] / drift[1] if drift and drift[1] else None,
        calibration_error=calibration,
        suite_expired=_is_expired(suite, today),
    )
    return Measured(
        validation_id=options.identity,
        mode=str(options.mode),
        model=model,
        dtype=behaviour.dtype,
        quantization=compared.recipe.quantization,
        base=Identity(path=str(compared.base), digest=compared.base_digest) if compared.base else None,
        adapters=[
            Identity(path=str(path), digest=own)
            for path, own in zip(compared.adapters, compared.adapter_digests, strict=True)
        ],
        suite=suite,
        versions=_versions(),
        device=loading.best_device().type,
        artifact_problems=problems,
        dimensions=dimensions,
        overall=overall,
        grade=scoring.grade_of(overall.score, hard_gate_failed=hard_gate_failed(gates)),
        fidelity=tensors.fidelity,
        divergence=behaviour.divergence,
        safety=safety_findings.find(safety_rows) if safety_rows else None,
        candidate_speed=behaviour.candidate_speed,
        base_speed=behaviour.base_speed,
        gates=gates,
        deployable=is_deployable(gates, unpaired_is_fine=options.on_workstation and compared.base is None),
        recommendations=recommend(findings),
        probes=behaviour.probes,
        rows=behaviour.rows,
        drift=drift,
        calibration_error=calibration,
    )

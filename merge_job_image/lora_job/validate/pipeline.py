"""One validation from directories to measurements, stage by stage.

    sources → files → tensors → behaviour (the models run) → gates → report

The order is from cheap and decisive to costly: broken files and NaN end it before a model runs; the report then says so
and the scores are 0.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from lora_job.outcome import Refused
from lora_job.validate import artifact, fidelity, loading, performance, safety_findings
from lora_job.validate import score as scoring
from lora_job.validate.behaviour import Behaviour, Progress, measure_behaviour, versions
from lora_job.validate.calibration import calibrate
from lora_job.validate.fidelity import Checkpoint, Fidelity
from lora_job.validate.gates import Effect, Observed, decide_gates, hard_gate_failed, is_deployable
from lora_job.validate.judge import Row
from lora_job.validate.logits import Divergence
from lora_job.validate.options import Options
from lora_job.validate.recipe import read_manifest
from lora_job.validate.recommendations import Findings, recommend
from lora_job.validate.report import Identity, Measured
from lora_job.validate.score import Dimension, Scored
from lora_job.validate.selection import Mode, depth_of, select
from lora_job.validate.sources import Compared, resolve
from lora_job.validate.suite import Suite, SuiteSet, load


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """What reading all tensors showed; `fidelity` None without sources to recompute from."""

    non_finite: list[str]
    fidelity: Fidelity | None
    problems: list[str]
    """Checkpoints that cannot be read at all."""


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


def _is_expired(suite: SuiteSet, rows: Sequence[Row], today: date) -> bool:
    """Whether the suite, or an item that was asked, is past its date."""
    ends = [suite.valid_until, *(row.item.origin.valid_until for row in rows)]
    return any(date.fromisoformat(end) < today for end in ends if end)


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
    placement = behaviour.placement
    calibration = calibrate(behaviour.rows) if options.mode is Mode.COMPREHENSIVE else None
    findings = Findings(
        gates=gates,
        dimensions=dimensions,
        paired=compared.base is not None,
        retention_min=tensors.fidelity.retention_min if tensors.fidelity else None,
        drift_ratio=drift[0] / drift[1] if drift and drift[1] else None,
        calibration_error=calibration.error if calibration else None,
        suite_expired=_is_expired(suite, behaviour.rows, today),
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
        versions=versions(),
        device=loading.best_device().type if placement is None or placement.on_device else "cpu",
        artifact_problems=problems,
        dimensions=dimensions,
        overall=overall,
        grade=scoring.grade_of(overall.score, hard_gate_failed=hard_gate_failed(gates)),
        fidelity=tensors.fidelity,
        divergence=behaviour.divergence,
        safety=safety_findings.find(safety_rows) if safety_rows else None,
        candidate_speed=behaviour.candidate_speed,
        base_speed=behaviour.base_speed,
        apart=placement is not None and not placement.together,
        base_quantization=compared.recipe.quantization if placement is not None and placement.quantized else "none",
        gates=gates,
        deployable=is_deployable(gates, unpaired_is_fine=options.on_workstation and compared.base is None),
        recommendations=recommend(findings),
        probes=behaviour.probes,
        rows=behaviour.rows,
        drift=drift,
        calibration=calibration,
    )

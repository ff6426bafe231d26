"""The report: one JSON object (design: validation.md §5 and product.md §4), built from measurements, and its rows.

Pure: no clock, no files; what it is given decides every byte. Host details never enter it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_job.validate import score
from lora_job.validate.calibration import Calibration
from lora_job.validate.fidelity import Fidelity
from lora_job.validate.gates import Gate
from lora_job.validate.judge import Judged, Row
from lora_job.validate.logits import Divergence, Probe
from lora_job.validate.performance import Speed
from lora_job.validate.recommendations import Recommendation
from lora_job.validate.safety_findings import SafetyFindings
from lora_job.validate.score import Dimension, Grade, Overall, Scored
from lora_job.validate.suite import Suite, SuiteSet

SCHEMA_VERSION = 1
GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A model directory as the report names it."""

    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything a validation found; None means it could not be measured."""

    validation_id: str
    mode: str
    model: Identity
    dtype: str
    quantization: str
    base: Identity | None
    adapters: Sequence[Identity]
    suite: SuiteSet
    versions: Mapping[str, str]
    device: str
    artifact_problems: Sequence[str]
    dimensions: Mapping[Dimension, Scored]
    overall: Overall
    grade: Grade
    fidelity: Fidelity | None
    divergence: Divergence | None
    safety: SafetyFindings | None
    candidate_speed: Speed | None
    base_speed: Speed | None
    apart: bool
    """Whether base and candidate were timed one after the other, not in turns."""
    base_quantization: str
    """What the base ran in: "none", or the candidate's where the device had no room for the plain base."""
    gates: Sequence[Gate]
    deployable: bool
    recommendations: Sequence[Recommendation]
    probes: Sequence[Probe]
    rows: Sequence[Row]
    drift: tuple[float, float | None] | None
    """(candidate, base) bits per byte."""
    calibration: Calibration | None
    """Mode comprehensive only."""


def _scored(scored: Scored) -> dict[str, Any]:
    against = scored.against
    return {
        "score": round(scored.score, 4),
        "ci95": scored.ci95.as_list(),
        "n": scored.n,
        "weight": scored.weight,
        "base": None if scored.base is None else round(scored.base, 4),
        "vsBase": None
        if against is None
        else {
            "diff": round(against.diff, 4),
            "ci95": against.ci95.as_list(),
            "mcnemarP": None if against.mcnemar_p is None else round(against.mcnemar_p, 6),
            "flips": {"lost": list(against.lost), "won": list(against.won)},
        },
    }


def _gate(gate: Gate) -> dict[str, Any]:
    return {
        "name": str(gate.name),
        "kind": str(gate.kind),
        "basis": str(gate.basis),
        "threshold": gate.threshold,
        "observed": gate.observed,
        "status": str(gate.status),
        "message": gate.message,
    }


def _accuracy(rows: Sequence[Row], suite: Suite) -> float | None:
    own = score.of_suite(rows, suite)
    return round(sum(row.candidate.score for row in own) / len(own), 4) if own else None


def _tasks(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean item score by task (bits per byte for plain texts), so that a weak language or kind is seen."""
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    found = {}
    for task, own in by_task.items():
        base = [row.base.score for row in own if row.base is not None]
        found[task] = {
            "n": len(own),
            "score": round(sum(row.candidate.score for row in own) / len(own), 4),
            "base": round(sum(base) / len(base), 4) if base else None,
        }
    return found


def _test_results(measured: Measured) -> dict[str, Any]:
    return {
        "response_accuracy": round(measured.dimensions[Dimension.BASIC].score, 4),
        "financial_knowledge_accuracy": _accuracy(measured.rows, Suite.FINANCE),
        "domain_expertise_score": round(100 * measured.dimensions[Dimension.DOMAIN].score, 2),
        "terminologyAccuracy": _accuracy(measured.rows, Suite.TERMINOLOGY),
        "responseQuality": _accuracy(measured.rows, Suite.QUALITY),
        "bitsPerByte": None
        if measured.drift is None
        else {"candidate": round(measured.drift[0], 5), "base": measured.drift[1] and round(measured.drift[1], 5)},
        "calibration": measured.calibration.as_json() if measured.calibration else None,
        "tasks": _tasks(measured.rows),
    }


def _performance(measured: Measured) -> dict[str, Any]:
    own = measured.candidate_speed
    if own is None:
        return {"avg_inference_time_seconds": None, "tokens_per_second": None, "memory_usage_gb": None}
    memory = own.peak_allocated if own.peak_allocated is not None else own.weights_bytes
    return {
        "avg_inference_time_seconds": round(sum(run.seconds for run in own.runs) / len(own.runs), 5),
        "tokens_per_second": round(own.tokens_per_second, 3),
        "memory_usage_gb": round(memory / GIB, 3),
        "candidate": own.as_json(),
        "base": measured.base_speed.as_json() if measured.base_speed else None,
        "interleaved": measured.base_speed is not None and not measured.apart,
    }


def _safety(measured: Measured) -> dict[str, Any]:
    if measured.safety is None:
        return {
            "safe_content_generation": False,
            "no_harmful_advice": False,
            "safety_rate": 0.0,
            "risk_awareness": False,
        }
    return measured.safety.as_json()


def _logits(divergence: Divergence | None) -> dict[str, Any] | None:
    if divergence is None:
        return None
    ratio = divergence.effect_ratio
    return {
        "positions": divergence.positions,
        "meanKL": divergence.mean_kl,
        "p99KL": divergence.p99_kl,
        "top1": divergence.top1,
        "maxDelta": divergence.max_delta,
        "noiseFloor": divergence.noise_floor,
        "effectRatio": None if ratio is None else round(ratio, 4),
        "mergedFromBase": divergence.merged_from_base,
    }


def _base(measured: Measured) -> dict[str, Any] | None:
    if measured.base is None:
        return None
    base = measured.base
    return {"path": base.path, "digest": base.digest, "quantization": measured.base_quantization}


def build(measured: Measured) -> dict[str, Any]:
    """The whole report."""
    overall = measured.overall
    return {
        "schemaVersion": SCHEMA_VERSION,
        "validation_id": measured.validation_id,
        "model_path": measured.model.path,
        "validation_mode": measured.mode,
        "success": measured.deployable,
        "overall_score": round(overall.score, 3),
        "quality_grade": str(measured.grade),
        "test_results": _test_results(measured),
        "performance_metrics": _performance(measured),
        "safety_checks": _safety(measured),
        "recommendations": [advice.as_json() for advice in measured.recommendations],
        "model": {"digest": measured.model.digest, "dtype": measured.dtype, "quantization": measured.quantization},
        "base": _base(measured),
        "adapter": [{"path": one.path, "digest": one.digest} for one in measured.adapters],
        "paired": measured.base is not None,
        "suite": {
            "name": measured.suite.name,
            "version": measured.suite.version,
            "sha256": measured.suite.sha256,
            "validUntil": measured.suite.valid_until,
        },
        "env": {"versions": dict(measured.versions), "device": measured.device},
        "artifact": {"problems": list(measured.artifact_problems)},
        "dimensions": {str(name): _scored(scored) for name, scored in measured.dimensions.items()},
        "fidelity": {
            "tensors": measured.fidelity.as_json() if measured.fidelity else None,
            "logits": _logits(measured.divergence),
        },
        "gates": [_gate(gate) for gate in measured.gates],
        "overall": {
            "score": round(overall.score, 3),
            "ci95": overall.ci95.as_list(),
            "grade": str(measured.grade),
            "withoutPerformance": round(overall.without_performance, 3),
        },
        "deployable": measured.deployable,
        "probes": [probe.as_json() for probe in measured.probes],
    }


def _judged(judged: Judged | None) -> dict[str, Any] | None:
    if judged is None:
        return None
    found: dict[str, Any] = {"score": judged.score, "answer": judged.answer}
    if judged.flags:
        found["flags"] = list(judged.flags)
    if judged.confidence is not None:
        found["confidence"] = judged.confidence
    return found


def row_line(row: Row) -> str:
    """One row as a JSON line (without the newline)."""
    return json.dumps(
        {
            "id": row.item.origin.id,
            "task": row.task,
            "suite": str(row.item.origin.suite),
            "kind": type(row.item).__name__.lower(),
            "lang": row.item.origin.lang,
            "topic": row.item.origin.topic,
            "promptHash": row.prompt_hash,
            "candidate": _judged(row.candidate),
            "base": _judged(row.base),
        },
        ensure_ascii=False,
    )

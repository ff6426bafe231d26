"""What the sums of a comparison say: Pass, Degraded or InsufficientData, metric by metric and together, with the figures.

    Degraded           any of: e-value ≥ metrics / α · a limit (max) exceeded for certain · more than half of ≥ 20 requests failed
    Pass               no alarm, enough requests, and for each metric the upper bound of candidate − stable is small enough
    InsufficientData   neither; a source that is silent counts as nothing, never as health

A bare comparison with a limit after each scrape would give up most healthy canaries; so a limit acts once the exact one-sided 99.9 %
bound of the stage is beyond it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from lora_operator.api.analysis import AnalysisSpec, Builtin, Metric
from lora_operator.core.analysis.comparison import (
    BOUND_CONFIDENCE,
    FEWEST,
    P95,
    Comparison,
    MetricSums,
    events_of,
)
from lora_operator.core.analysis.intervals import lower_share, newcombe_upper
from lora_operator.core.analysis.sequential import lower_mean, rate_evidence, ratio_evidence

__all__ = ["Outcome", "Verdict", "judged", "mismatch_of", "stays_fresh"]

NOT_WORSE = 0.05  # difference of shares that a promotion has to rule out
ONE_SIDED_95 = 1.6448536269514722
BROKEN_SHARE = 0.5
RATIO_ALPHA = 0.001
LONGEST_E = 1e12
ROUNDED = 4  # significant digits


class Verdict(StrEnum):
    """Of a metric, and of all together."""

    PASS = "Pass"  # noqa: S105 (a verdict)
    DEGRADED = "Degraded"
    INSUFFICIENT_DATA = "InsufficientData"


@dataclass(frozen=True)
class Outcome:
    """The whole judgement. `evidence`: the figures of what was found worse."""

    verdict: Verdict
    message: str
    metrics: tuple[Mapping[str, Any], ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Judged:
    verdict: Verdict
    figures: dict[str, Any]
    message: str


def stays_fresh(known: Comparison, *, interval: float, now: datetime) -> bool:
    """Whether both versions were read not long ago."""
    patience = timedelta(seconds=3 * interval + 10)
    return known.measured_at is not None and now - known.measured_at <= patience


def judged(known: Comparison, *, spec: AnalysisSpec, fresh: bool) -> Outcome:
    """The judgement of all sums so far. `fresh`: whether the source still answers (see stays_fresh)."""
    each = [_metric(known, metric, spec=spec) for metric in spec.metrics]
    figures = tuple(one.figures for one in each)
    broken = _broken(known)
    figures += () if broken is None else (broken.figures,)
    worse = next((one for one in each if one.verdict is Verdict.DEGRADED), None) or broken
    if worse is not None:
        return Outcome(verdict=Verdict.DEGRADED, message=worse.message, metrics=figures, evidence=worse.figures)
    lacking = _lacks(known, spec=spec, fresh=fresh) or next(
        (one.message for one in each if one.verdict is not Verdict.PASS), ""
    )
    verdict = Verdict.INSUFFICIENT_DATA if lacking else Verdict.PASS
    return Outcome(verdict=verdict, message=lacking or "the candidate is not worse than stable", metrics=figures)


def mismatch_of(known: Comparison, *, share: float | None) -> str:
    """How the split of requests differs from the declared one; empty where it does not, or cannot be told."""
    candidate, stable = known.in_stage.candidate.arrived, known.in_stage.stable.arrived
    if share is None or not 0 < share < 1 or candidate < 0 or stable < 0 or candidate + stable < FEWEST:
        return ""
    if ratio_evidence(candidate=candidate, stable=stable, share=share) < math.log(1 / RATIO_ALPHA):
        return ""
    found = 100 * candidate / (candidate + stable)
    return (
        f"the candidate got {found:.1f} % of {candidate + stable:.0f} requests, expected {100 * share:.0f} %: "
        "the router does not split them as declared, so nothing that is compared means anything"
    )


def _lacks(known: Comparison, *, spec: AnalysisSpec, fresh: bool) -> str:
    said = f"; {'; '.join(known.problems[:2])}" if known.problems else ""
    if known.measured_at is None:
        return f"no figures of both versions yet{said}"
    if not fresh:
        return f"no figures of both versions since {known.measured_at:%H:%M:%SZ}{said}"
    count = known.whole.candidate.requests
    if count < spec.min_candidate_requests:
        return (
            f"the candidate has answered {count:.0f} of {spec.min_candidate_requests} requests (minCandidateRequests)"
        )
    return ""


def _broken(known: Comparison) -> _Judged | None:
    part = known.in_stage.candidate
    if part.requests < FEWEST or part.errors <= BROKEN_SHARE * part.requests:
        return None
    message = f"{part.errors:.0f} of {part.requests:.0f} requests to the candidate failed"
    figures = {
        "name": "breaker",
        "verdict": str(Verdict.DEGRADED),
        "rule": "more than half failed",
        "candidateEvents": _round(part.errors),
        "candidateRequests": _round(part.requests),
    }
    return _Judged(verdict=Verdict.DEGRADED, figures=figures, message=message)


def _metric(known: Comparison, metric: Metric, *, spec: AnalysisSpec) -> _Judged:
    sums = known.metrics.get(metric.name, MetricSums())
    alpha = spec.alpha / max(1, len(spec.metrics))
    counts = metric.builtin in (Builtin.ERROR_RATE, Builtin.LATENCY_P95)
    one = (
        _counted(known, metric, sums, spec=spec, alpha=alpha) if counts else _mean(metric, sums, spec=spec, alpha=alpha)
    )
    name = {"name": metric.name} | ({} if metric.builtin is None else {"builtin": str(metric.builtin)})
    shown = _shown(known, metric, sums)
    figures = name | {"verdict": str(one.verdict)} | shown | {key: _round(value) for key, value in one.figures.items()}
    if one.verdict is not Verdict.PASS:
        figures["message"] = one.message
    return _Judged(verdict=one.verdict, figures=figures, message=f"{metric.name}: {one.message}")


def _shown(known: Comparison, metric: Metric, sums: MetricSums) -> dict[str, float]:
    """Stable's and the candidate's figure: a share, seconds, answers per second, or what the query says on average."""
    if metric.query:
        pair = tuple(m.mean if m.count else None for m in (sums.stable, sums.candidate))
    elif metric.builtin is Builtin.THROUGHPUT:
        parts = (known.whole.stable, known.whole.candidate)
        pair = tuple((p.requests - p.errors) / known.seconds if known.seconds > 0 else None for p in parts)
    elif metric.builtin is Builtin.ERROR_RATE:
        parts = (known.reference, known.whole.candidate)
        pair = tuple(p.errors / p.requests if p.requests > 0 else None for p in parts)
    else:
        pair = tuple(p.time(metric.of).quantile(P95) for p in (known.reference, known.whole.candidate))
    return {key: _round(value) for key, value in zip(("stable", "candidate"), pair, strict=True) if value is not None}


def _counted(known: Comparison, metric: Metric, sums: MetricSums, *, spec: AnalysisSpec, alpha: float) -> _Judged:
    events, requests = events_of(metric, known.whole.candidate, edge=sums.edge)
    base_events, base_requests = events_of(metric, known.reference, edge=sums.edge)
    log_e, threshold = rate_evidence(sums.evidence), 1 / alpha
    upper = newcombe_upper(events, requests, base_events=base_events, base_of=base_requests, z=ONE_SIDED_95)
    figures: dict[str, Any] = {
        "stableEvents": base_events,
        "stableRequests": base_requests,
        "candidateEvents": events,
        "candidateRequests": requests,
        "e": math.exp(min(log_e, math.log(LONGEST_E))),
        "threshold": threshold,
        "upperBound": upper,
    }
    what = "failed"
    if sums.edge is not None:
        figures["edgeSeconds"] = sums.edge
        what = f"took longer than {sums.edge:g} s"
    counted = f"{events:.0f} of {requests:.0f} requests {what}, of stable {base_events:.0f} of {base_requests:.0f}"
    if log_e >= math.log(threshold):
        message = f"{counted}: worse than {spec.ratio_of(metric):g} × stable (e-value {figures['e']:.3g}, limit {threshold:.3g})"
        return _Judged(Verdict.DEGRADED, figures | {"rule": "e-process"}, message)
    beyond = _beyond(known, metric)
    if beyond is not None:
        return _Judged(Verdict.DEGRADED, figures | beyond[0], beyond[1])
    if upper < NOT_WORSE:
        return _Judged(Verdict.PASS, figures, counted)
    message = f"{counted}: a difference of {100 * NOT_WORSE:.0f} points is not ruled out yet"
    return _Judged(Verdict.INSUFFICIENT_DATA, figures, message)


def _beyond(known: Comparison, metric: Metric) -> tuple[dict[str, Any], str] | None:
    """The user's limit, exceeded for certain in this stage."""
    if metric.max is None:
        return None
    part, allowed, edge = known.in_stage.candidate, metric.max, None
    if metric.builtin is Builtin.LATENCY_P95:
        edges = [one for one in sorted(part.time(metric.of).edges) if one >= metric.max]
        if not edges:
            return None
        edge, allowed = edges[0], 1 - P95  # a 95th percentile beyond the limit: more than 5 % are slower
    events, requests = events_of(metric, part, edge=edge)
    lower = lower_share(events, requests, confidence=BOUND_CONFIDENCE)
    if requests < FEWEST or lower <= allowed:
        return None
    figures = {"rule": "max", "max": metric.max, "lowerBound": lower, "events": events, "requests": requests}
    what = "failed" if edge is None else f"took longer than {edge:g} s"
    message = (
        f"{events:.0f} of {requests:.0f} requests of this step {what}: at least {100 * lower:.1f} % of them (99.9 % sure), "
        f"max is {metric.max:g}{'' if edge is None else ' s for 95 %'}"
    )
    return figures, message


def _mean(metric: Metric, sums: MetricSums, *, spec: AnalysisSpec, alpha: float) -> _Judged:
    worse = lower_mean(sums.worse, alpha=alpha)
    fine = lower_mean(sums.worse.negative, alpha=spec.alpha)
    figures: dict[str, Any] = {"looks": sums.worse.count}
    compared = f"{sums.candidate.mean:.4g} on average over {sums.worse.count} scrapes, stable {sums.stable.mean:.4g}"
    if worse is None or fine is None:
        said = (
            compared
            if sums.worse.count
            else "nothing measured yet: the query answers nothing, or no step holds the weight"
        )
        return _Judged(Verdict.INSUFFICIENT_DATA, figures, said)
    figures |= {"worseByAtLeast": worse, "betterByAtLeast": fine}
    if worse > 0:
        return _Judged(
            Verdict.DEGRADED, figures | {"rule": "mean"}, f"{compared}: worse than {spec.ratio_of(metric):g} × stable"
        )
    above = None if metric.max is None else lower_mean(sums.candidate, alpha=alpha)
    if above is not None and metric.max is not None and above > metric.max:
        return _Judged(
            Verdict.DEGRADED, figures | {"rule": "max", "max": metric.max}, f"{compared}; max is {metric.max:g}"
        )
    if fine > 0:
        return _Judged(Verdict.PASS, figures, compared)
    return _Judged(Verdict.INSUFFICIENT_DATA, figures, f"{compared}: not certain yet")


def _round(value: Any) -> Any:
    """Few digits, so that equal figures are equal bytes."""
    if not isinstance(value, float):
        return value
    if value == int(value) and abs(value) < LONGEST_E:
        return int(value)
    return float(f"{value:.{ROUNDED}g}")

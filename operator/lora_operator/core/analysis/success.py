"""Who has won an A/B test: the success metrics of `strategy.abTest`, from the same sums as every analysis.

    standing = success_of(comparison, spec=spec.analysis, names=spec.strategy.ab_test.success_metrics, alpha=spec.analysis.alpha)
    standing.winner   Variant.CANDIDATE │ Variant.STABLE │ None (open)

Each scrape's difference candidate − stable of a metric is one observation. The candidate wins when the lower bound of the first
metric's gain is above 0 and no other is worse; stable wins as soon as the candidate can no longer be better: the first metric's loss
is certain, or another is worse. While neither is certain the test is open, and at its end stable keeps its place. Bounds hold at all
looks together (sequential.py); α is split over the metrics. A metric that counts (errorRate, latencyP95) is compared by its e-process.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lora_operator.api.analysis import AnalysisSpec, Metric, Variant
from lora_operator.core.analysis.comparison import Comparison, MetricSums
from lora_operator.core.analysis.sequential import lower_mean, rate_evidence

__all__ = ["Standing", "success_of"]


@dataclass(frozen=True)
class Standing:
    """How the test stands. `winner` None: nobody yet."""

    winner: Variant | None
    message: str


def success_of(known: Comparison, *, spec: AnalysisSpec, names: Sequence[str]) -> Standing:
    """The standing by the named metrics; `names` are entries of spec.metrics, the first decides."""
    metrics = {metric.name: metric for metric in spec.metrics}
    chosen = [metrics[name] for name in names if name in metrics]
    if not chosen:
        return Standing(winner=None, message="no success metric is defined")
    alpha = spec.alpha / len(chosen)
    for metric in chosen:
        worse = _loses(known, metric, alpha=alpha)
        if worse:
            return Standing(winner=Variant.STABLE, message=worse)
    first = chosen[0]
    gain = known.metrics.get(first.name, MetricSums()).gain
    lower = lower_mean(gain, alpha=alpha)
    if lower is None:
        return Standing(winner=None, message=f"{first.name}: {gain.count} looks so far")
    figures = f"{first.name}: better by {gain.mean:.4g} on average over {gain.count} looks, at least by {lower:.4g}"
    return Standing(winner=Variant.CANDIDATE if lower > 0 else None, message=figures)


def _loses(known: Comparison, metric: Metric, *, alpha: float) -> str:
    """Why the candidate cannot win by this metric; empty while it can."""
    sums = known.metrics.get(metric.name, MetricSums())
    if rate_evidence(sums.evidence) >= math.log(1 / alpha):
        return f"{metric.name}: worse than stable (e-value {math.exp(min(27.0, rate_evidence(sums.evidence))):.3g})"
    loss = lower_mean(sums.gain.negative, alpha=alpha)
    if loss is not None and loss > 0:
        return f"{metric.name}: worse by {-sums.gain.mean:.4g} on average over {sums.gain.count} looks, at least by {loss:.4g}"
    return ""

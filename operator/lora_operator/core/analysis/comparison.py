"""The running sums of a rollout's comparison, and one more scrape added to them.

    counters of each pod ─► what grew since the last scrape ─► one window of each version
      ► running sums of the rollout and of the stage ► log likelihood ratios, moments

A stage is a time in which the weight stood still (a step of a canary, a test); only its sums say how requests were split. All of it
is stored between two scrapes (stored.py), so a killed operator goes on where it was. A scrape that brought nothing adds nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from lora_operator.api.analysis import AnalysisSpec, Builtin, Metric, Variant
from lora_operator.core.analysis.counters import ZERO, Counters, grown, summed
from lora_operator.core.analysis.intervals import upper_share
from lora_operator.core.analysis.sequential import NO_EVIDENCE, NOTHING_SEEN, Moments, against_bound, against_stable

__all__ = ["Comparison", "MetricSums", "Pair", "Reading", "Sample", "events_of", "folded"]

P95 = 0.95
FEWEST = 20  # requests from which a share is worth a figure
BOUND_CONFIDENCE = 0.999


@dataclass(frozen=True)
class Reading:
    """What one pod has counted."""

    revision: str
    counters: Counters
    created: datetime | None = None  # when the pod was made; None: not known


@dataclass(frozen=True)
class Sample:
    """One look at the source. `stage`: what stood still while it was taken, empty while traffic moves."""

    at: datetime
    rollout: str  # which rollout it was taken for
    stage: str
    source: str = ""  # who counted: figures of two sources are no comparison
    readings: Mapping[str, Reading] = field(default_factory=dict)  # by pod
    values: Mapping[str, Mapping[Variant, float]] = field(default_factory=dict)  # by metric: what its query answered
    problems: tuple[str, ...] = ()  # what could not be read, in words


@dataclass(frozen=True)
class Pair:
    """The same of both versions."""

    stable: Counters = ZERO
    candidate: Counters = ZERO

    def plus(self, other: "Pair") -> "Pair":
        """Both added."""
        return Pair(stable=summed((self.stable, other.stable)), candidate=summed((self.candidate, other.candidate)))


@dataclass(frozen=True)
class MetricSums:
    """What is kept of one metric beyond the counters."""

    edge: float | None = None  # latency: the bucket edge beyond which an answer is slow; None: not chosen yet
    evidence: tuple[float, ...] = NO_EVIDENCE
    stable: Moments = NOTHING_SEEN  # of a value per window: queries, throughput
    candidate: Moments = NOTHING_SEEN
    worse: Moments = NOTHING_SEEN  # by how much the candidate exceeds what is still fine
    gain: Moments = NOTHING_SEEN  # candidate − stable, turned so that more is better


@dataclass(frozen=True)
class Comparison:
    """Everything that is remembered of it."""

    stable: str  # revisions
    candidate: str
    rollout: str  # one candidate may be tried twice
    source: str = ""  # who counts the requests
    since: datetime | None = None  # first scrape; None: there was none
    at: datetime | None = None  # last scrape
    measured_at: datetime | None = None  # last scrape that read both versions, and each query of both
    seconds: float = 0.0  # length of all windows
    stage: str = ""
    readings: Mapping[str, Reading] = field(default_factory=dict)
    history: Counters = ZERO  # what stable had counted before
    whole: Pair = Pair()
    in_stage: Pair = Pair()
    metrics: Mapping[str, MetricSums] = field(default_factory=dict)
    problems: tuple[str, ...] = ()  # of the last scrape

    @property
    def reference(self) -> Counters:
        """Stable's figures: those of the same time, or where it has hardly any requests what it counted before too."""
        if self.whole.stable.requests >= FEWEST:
            return self.whole.stable
        return summed((self.history, self.whole.stable))


def folded(known: Comparison, sample: Sample, *, spec: AnalysisSpec, share: float | None) -> Comparison:
    """The sums after one more scrape. `share`: of the requests that the candidate should get; None: nothing stands still."""
    readings = {pod: r for pod, r in sample.readings.items() if r.revision in (known.stable, known.candidate)}
    whole = _whole(known, sample, readings, spec=spec)
    window = _window(known, readings)
    stays = bool(sample.stage) and known.stage == sample.stage
    first = known.since is None
    now = replace(
        known,
        since=known.since or sample.at,
        at=sample.at,
        measured_at=sample.at if whole else known.measured_at,
        seconds=known.seconds + (0.0 if known.at is None else (sample.at - known.at).total_seconds()),
        stage=sample.stage,
        readings={**known.readings, **readings} if sample.problems else readings,
        history=_counted(readings, known.stable) if first else known.history,
        whole=known.whole.plus(window),
        in_stage=known.in_stage.plus(window) if stays else Pair(),
        problems=sample.problems,
    )
    metrics = {metric.name: _sums(now, metric, window, sample=sample, spec=spec) for metric in spec.metrics}
    if stays and share is not None and known.at is not None:
        speeds = _speeds(window, (sample.at - known.at).total_seconds(), share=share)
        for metric in spec.metrics:
            if metric.builtin is Builtin.THROUGHPUT:
                metrics[metric.name] = _with_values(metrics[metric.name], metric, speeds, ratio=spec.ratio_of(metric))
    return replace(now, metrics=metrics)


def events_of(metric: Metric, counters: Counters, *, edge: float | None) -> tuple[float, float]:
    """Events (failed or slow requests) and requests, of a metric that counts."""
    if metric.builtin is Builtin.ERROR_RATE:
        return counters.errors, counters.requests
    times = counters.time(metric.of)
    return (0.0, 0.0) if edge is None else (times.slower(edge), times.total)


def _whole(known: Comparison, sample: Sample, readings: Mapping[str, Reading], *, spec: AnalysisSpec) -> bool:
    """Whether the scrape says something of both versions, counters and every query: a query that falls silent is silence too."""
    counted = {known.stable, known.candidate} <= {reading.revision for reading in readings.values()}
    answers = (sample.values.get(metric.name, {}) for metric in spec.metrics if metric.query)
    return counted and all(set(Variant) <= answer.keys() for answer in answers)


def _window(known: Comparison, readings: Mapping[str, Reading]) -> Pair:
    if known.since is None:
        return Pair()
    parts: dict[str, list[Counters]] = {known.stable: [], known.candidate: []}
    for pod, reading in readings.items():
        before = known.readings.get(pod)
        if before is not None:
            parts[reading.revision].append(grown(before.counters, reading.counters))
        elif reading.created is not None and reading.created > known.since:
            parts[reading.revision].append(reading.counters)  # younger than the comparison: it began at zero
    return Pair(stable=summed(parts[known.stable]), candidate=summed(parts[known.candidate]))


def _counted(readings: Mapping[str, Reading], revision: str) -> Counters:
    return summed(reading.counters for reading in readings.values() if reading.revision == revision)


def _sums(now: Comparison, metric: Metric, window: Pair, *, sample: Sample, spec: AnalysisSpec) -> MetricSums:
    known, ratio = now.metrics.get(metric.name, MetricSums()), spec.ratio_of(metric)
    if metric.query:
        return _with_values(known, metric, sample.values.get(metric.name, {}), ratio=ratio)
    if metric.builtin is Builtin.THROUGHPUT:
        return known
    if metric.builtin is Builtin.LATENCY_P95 and known.edge is None:
        known = replace(known, edge=_edge(now, metric))
    events, requests = events_of(metric, window.candidate, edge=known.edge)
    base_events, base_requests = events_of(metric, window.stable, edge=known.edge)
    if requests > 0 and base_requests > 0:  # for an A/B test, which asks by how much
        shares = {Variant.STABLE: base_events / base_requests, Variant.CANDIDATE: events / requests}
        known = _with_values(known, metric, shares, ratio=ratio)
    if base_requests > 0:
        evidence = against_stable(
            known.evidence,
            events=events,
            requests=requests,
            base_events=base_events,
            base_requests=base_requests,
            ratio=ratio,
        )
        return replace(known, evidence=evidence)
    past_events, past_requests = events_of(metric, now.reference, edge=known.edge)
    bound = upper_share(past_events, past_requests, confidence=BOUND_CONFIDENCE)
    evidence = against_bound(known.evidence, events=events, requests=requests, bound=bound, ratio=ratio)
    return replace(known, evidence=evidence)


def _edge(now: Comparison, metric: Metric) -> float | None:
    """The edge nearest to stable's 95th percentile, of those that both versions have; chosen once, so that windows compare."""
    pods = now.readings.values()
    common = [pod.counters.time(metric.of).edges for pod in pods if pod.counters.time(metric.of).buckets]
    if len({pod.revision for pod in pods if pod.counters.time(metric.of).buckets}) < 2:
        return None
    edges = frozenset.intersection(*common)
    times = summed((now.history, now.whole.stable)).time(metric.of)
    quantile = times.quantile(P95) if times.total >= FEWEST else None
    return None if quantile is None or not edges else min(sorted(edges), key=lambda edge: abs(edge - quantile))


def _speeds(window: Pair, seconds: float, *, share: float) -> dict[Variant, float]:
    """Good answers per second, each as if the version had all requests."""
    if seconds <= 0 or not 0 < share < 1:
        return {}
    parts = {Variant.STABLE: (window.stable, 1 - share), Variant.CANDIDATE: (window.candidate, share)}
    return {variant: (part.requests - part.errors) / seconds / weight for variant, (part, weight) in parts.items()}


def _with_values(known: MetricSums, metric: Metric, values: Mapping[Variant, float], *, ratio: float) -> MetricSums:
    if not set(Variant) <= values.keys():
        return known
    stable, candidate = values[Variant.STABLE], values[Variant.CANDIDATE]
    better = candidate - stable if metric.higher_is_better else stable - candidate
    slack = (ratio - 1) * abs(stable) if not metric.higher_is_better else (1 - 1 / ratio) * abs(stable)
    return replace(
        known,
        stable=known.stable.with_value(stable),
        candidate=known.candidate.with_value(candidate),
        gain=known.gain.with_value(better),
        worse=known.worse.with_value(-better - slack),
    )

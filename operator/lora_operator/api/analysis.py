"""How candidate and stable are compared: `spec.analysis`, parsed into frozen types.

`None` where the settings stand in for a silent spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lora_operator.api.errors import Invalid
from lora_operator.api.reader import Reader

__all__ = [
    "AnalysisSpec",
    "Builtin",
    "Direction",
    "Metric",
    "Of",
    "OnInsufficientData",
    "Variant",
    "filled_in",
    "parse_analysis",
]

DEFAULT_ALPHA = 0.05
DEFAULT_MARGIN = 0.1


class Builtin(StrEnum):
    """Figures that the operator knows by itself."""

    ERROR_RATE = "errorRate"
    LATENCY_P95 = "latencyP95"
    THROUGHPUT = "throughput"


class Of(StrEnum):
    """Which time a latency is."""

    TTFT = "TTFT"  # to the first token
    DURATION = "Duration"  # of the whole answer


class Direction(StrEnum):
    """Which way is better."""

    HIGHER_IS_BETTER = "HigherIsBetter"
    LOWER_IS_BETTER = "LowerIsBetter"


class OnInsufficientData(StrEnum):
    """What happens when there is too little data after the timeout."""

    WAIT = "Wait"
    PAUSE = "Pause"
    PROMOTE = "Promote"


class Variant(StrEnum):
    """The two versions that are compared."""

    STABLE = "stable"
    CANDIDATE = "candidate"


@dataclass(frozen=True)
class Metric:
    """One figure. Exactly one of `builtin` and `query` is set."""

    name: str
    builtin: Builtin | None = None
    query: str = ""  # PromQL with {{variant}} {{namespace}} {{service}}
    of: Of = Of.DURATION  # of latencyP95 only
    max: float | None = None  # None: no limit of its own. Seconds for latencyP95, a share for errorRate
    max_ratio: float | None = None  # of candidate / stable; None: 1 + margin
    direction: Direction = Direction.LOWER_IS_BETTER

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is good."""
        return self.direction is Direction.HIGHER_IS_BETTER


@dataclass(frozen=True)
class AnalysisSpec:
    """`spec.analysis`. Empty `prometheus`: the pods' metrics are read directly."""

    interval_seconds: int | None
    prometheus: str
    alpha: float
    margin: float
    min_candidate_requests: int
    on_insufficient_data: OnInsufficientData
    timeout_seconds: int
    metrics: tuple[Metric, ...]

    def ratio_of(self, metric: Metric) -> float:
        """How many times stable's figure the candidate may show and still be fine."""
        return 1.0 + self.margin if metric.max_ratio is None else metric.max_ratio


def parse_analysis(reader: Reader) -> AnalysisSpec:
    """`spec.analysis`; an absent one is the defaults.

    Raises:
        Invalid: naming field, found and expected.
    """
    source = reader.child("source")
    address = ""
    if "source" in reader and source.one_of("scrape", "prometheus") == "prometheus":
        address = source.child("prometheus").text("address")
    return AnalysisSpec(
        interval_seconds=reader.integer("intervalSeconds", minimum=1) if "intervalSeconds" in reader else None,
        prometheus=address.rstrip("/"),
        alpha=reader.number("alpha", DEFAULT_ALPHA),
        margin=reader.number("margin", DEFAULT_MARGIN),
        min_candidate_requests=reader.integer("minCandidateRequests", 100),
        on_insufficient_data=reader.choice("onInsufficientData", OnInsufficientData, OnInsufficientData.WAIT),
        timeout_seconds=reader.integer("insufficientDataTimeoutSeconds", 3600, minimum=1),
        metrics=tuple(_metric(item, prometheus=bool(address)) for item in reader.children("metrics")),
    )


def _metric(reader: Reader, *, prometheus: bool) -> Metric:
    builtin = None
    if reader.one_of("builtin", "query") == "builtin":
        builtin = reader.choice("builtin", Builtin)
    elif not prometheus:
        raise Invalid(
            field=reader.at("query"),
            found=reader.text("query"),
            expected="builtin, or spec.analysis.source.prometheus to ask",
        )
    better = Direction.HIGHER_IS_BETTER if builtin is Builtin.THROUGHPUT else Direction.LOWER_IS_BETTER
    metric = Metric(
        name=reader.text("name"),
        builtin=builtin,
        query=reader.text("query", ""),
        of=reader.choice("of", Of, Of.DURATION),
        max=reader.number("max") if "max" in reader else None,
        max_ratio=reader.number("maxRatioToStable") if "maxRatioToStable" in reader else None,
        direction=reader.choice("direction", Direction, better),
    )
    if metric.max is not None and metric.higher_is_better:
        raise Invalid(
            field=reader.at("max"),
            found=metric.max,
            expected="nothing: more of it is better (direction HigherIsBetter)",
        )
    if builtin is not None and metric.direction is not better:
        raise Invalid(field=reader.at("direction"), found=metric.direction, expected=f"{better} for {builtin}")
    return metric


def filled_in(query: str, values: Mapping[str, str]) -> str:
    """The query of one variant: `{{name}}` replaced."""
    for name, value in values.items():
        query = query.replace("{{" + name + "}}", value)
    return query

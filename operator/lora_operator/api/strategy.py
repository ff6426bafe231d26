"""How a change is rolled out: `spec.strategy`, parsed into frozen types.

Members of other types than the chosen one may stay in a manifest; they are parsed all the same and have no effect.
`None` where a settings value stands in for a silent spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from lora_operator.api.errors import Invalid
from lora_operator.api.names import canonical_hash
from lora_operator.api.reader import Reader

__all__ = [
    "ABTest",
    "BlueGreen",
    "CanaryStep",
    "Match",
    "OnEnd",
    "OnTimeout",
    "Strategy",
    "StrategyType",
    "parse_strategy",
    "with_default_steps",
]

LARGEST_WEIGHT = 100
KEEP_PREVIOUS_SECONDS = 600
TEST_SECONDS = 86400
ANALYSE_SECONDS = 300


class StrategyType(StrEnum):
    """How a change is rolled out."""

    REPLACE = "Replace"
    BLUE_GREEN = "BlueGreen"
    CANARY = "Canary"
    AB_TEST = "ABTest"


class OnTimeout(StrEnum):
    """What becomes of an approval that nobody gave in time."""

    ABORT = "Abort"
    PROMOTE = "Promote"


class OnEnd(StrEnum):
    """What becomes of a finished A/B test."""

    PROMOTE_WINNER = "PromoteWinner"
    PAUSE = "Pause"


@dataclass(frozen=True)
class BlueGreen:
    """All requests at once, after a delay or an approval."""

    switch_delay_seconds: int | None  # None: the settings say
    auto_promote: bool
    keep_previous_seconds: int


@dataclass(frozen=True)
class CanaryStep:
    """One step. Exactly one of `weight`, `bake_seconds`, `analyse_seconds` is set, or none of them: then an approval is waited for."""

    weight: int | None = None
    bake_seconds: int | None = None
    analyse_seconds: int | None = None
    timeout_seconds: int | None = None  # of the approval; None: it is waited for without end
    on_timeout: OnTimeout = OnTimeout.ABORT
    raw: Mapping[str, Any] | None = None

    @property
    def is_approval(self) -> bool:
        """Whether it waits for a promote request."""
        return self.weight is None and self.bake_seconds is None and self.analyse_seconds is None


@dataclass(frozen=True)
class Match:
    """Requests that always reach the candidate: those whose header, or whose cookie, has exactly this value."""

    kind: Literal["header", "cookie"]
    name: str
    value: str


@dataclass(frozen=True)
class ABTest:
    """A fixed split until a winner is known, or the time is over."""

    candidate_weight: int  # percent; stable gets the rest
    duration_seconds: int
    match: Match | None  # None: the weights alone decide
    success_metrics: tuple[str, ...]  # the first decides; on the others the candidate must not be worse
    max_error_rate: float | None  # None: no condition of that kind
    max_performance_degradation: float | None
    on_end: OnEnd


@dataclass(frozen=True)
class Strategy:
    """The chosen type with its members. `steps` is empty where the spec names none."""

    type: StrategyType
    blue_green: BlueGreen
    steps: tuple[CanaryStep, ...]
    ab_test: ABTest | None  # None: the spec has no such member
    default_steps: bool = False  # the steps are not the spec's own

    def prefix(self, count: int) -> str:
        """Hash of the first `count` steps: whether those already taken are still what they were."""
        return canonical_hash([step.raw for step in self.steps[:count]], digits=16)

    @property
    def split(self) -> str:
        """Hash of the A/B test's split: whether what is being measured is still what it was."""
        return canonical_hash([None if self.ab_test is None else self.ab_test.candidate_weight], digits=16)


def with_default_steps(strategy: Strategy, *, weight: int) -> Strategy:
    """A canary that names no steps: the weight of the settings, and an analysis of five minutes."""
    if strategy.type is not StrategyType.CANARY or strategy.steps:
        return strategy
    steps = (
        CanaryStep(weight=weight, raw={"setWeight": weight}),
        CanaryStep(analyse_seconds=ANALYSE_SECONDS, raw={"analyse": {"seconds": ANALYSE_SECONDS}}),
    )
    return replace(strategy, steps=steps, default_steps=True)


def parse_strategy(reader: Reader) -> Strategy:
    """`spec.strategy`; an absent one is Replace.

    Raises:
        Invalid: naming field, found and expected.
    """
    blue_green = reader.child("blueGreen")
    chosen = reader.choice("type", StrategyType, StrategyType.REPLACE)
    return Strategy(
        type=chosen,
        blue_green=BlueGreen(
            switch_delay_seconds=_optional(blue_green, "switchDelaySeconds", minimum=0),
            auto_promote=blue_green.boolean("autoPromote", default=True),
            keep_previous_seconds=blue_green.integer("keepPreviousSeconds", KEEP_PREVIOUS_SECONDS),
        ),
        steps=tuple(_step(item) for item in reader.child("canary").children("steps")),
        ab_test=_ab_test(reader, chosen=chosen),
    )


def _ab_test(reader: Reader, *, chosen: StrategyType) -> ABTest | None:
    if "abTest" not in reader:
        if chosen is StrategyType.AB_TEST:
            raise Invalid(field=reader.at("abTest"), found="none", expected="split and successMetrics")
        return None
    test = reader.child("abTest")
    split, conditions = test.required("split"), test.child("rollbackConditions")
    stable, candidate = split.integer("stable"), split.integer("candidate")
    if stable + candidate != LARGEST_WEIGHT:
        raise Invalid(field=test.at("split"), found=f"{stable} + {candidate}", expected="two numbers that sum to 100")
    metrics = test.texts("successMetrics")
    if not metrics:
        raise Invalid(field=test.at("successMetrics"), found="none", expected="at least one name of analysis.metrics")
    return ABTest(
        candidate_weight=candidate,
        duration_seconds=test.integer("durationSeconds", TEST_SECONDS, minimum=1),
        match=_match(test.child("match")) if "match" in test else None,
        success_metrics=metrics,
        max_error_rate=conditions.number("maxErrorRate") if "maxErrorRate" in conditions else None,
        max_performance_degradation=(
            conditions.number("maxPerformanceDegradation") if "maxPerformanceDegradation" in conditions else None
        ),
        on_end=test.choice("onEnd", OnEnd, OnEnd.PROMOTE_WINNER),
    )


def _match(reader: Reader) -> Match:
    kind = reader.one_of("header", "cookie")
    inner = reader.required(kind)
    return Match(
        kind="header" if kind == "header" else "cookie",
        name=inner.text("name"),
        value=inner.text("value"),
    )


def _step(reader: Reader) -> CanaryStep:
    kind = reader.one_of("setWeight", "pause", "analyse")
    if kind == "setWeight":
        weight = reader.integer("setWeight")
        if weight > LARGEST_WEIGHT:
            raise Invalid(field=reader.at("setWeight"), found=weight, expected="a whole number from 0 to 100")
        return CanaryStep(weight=weight, raw=reader.raw)
    if kind == "analyse":
        return CanaryStep(analyse_seconds=reader.required("analyse").integer("seconds", minimum=1), raw=reader.raw)
    pause = reader.child("pause")
    return CanaryStep(
        bake_seconds=_optional(pause, "seconds", minimum=1),
        timeout_seconds=_optional(pause, "timeoutSeconds", minimum=1),
        on_timeout=pause.choice("onTimeout", OnTimeout, OnTimeout.ABORT),
        raw=reader.raw,
    )


def _optional(reader: Reader, key: str, *, minimum: int) -> int | None:
    return reader.integer(key, minimum=minimum) if key in reader else None

"""How a change is rolled out: `spec.strategy`, parsed into frozen types.

Members of other types than the chosen one may stay in a manifest; they are parsed all the same and have no effect.
`None` where a settings value stands in for a silent spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lora_operator.api.errors import Invalid
from lora_operator.api.names import canonical_hash
from lora_operator.api.reader import Reader

__all__ = ["BlueGreen", "CanaryStep", "OnTimeout", "Strategy", "StrategyType", "parse_strategy"]

LARGEST_WEIGHT = 100
KEEP_PREVIOUS_SECONDS = 600


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
class Strategy:
    """The chosen type with its members. `steps` is empty where the spec names none."""

    type: StrategyType
    blue_green: BlueGreen
    steps: tuple[CanaryStep, ...]

    def prefix(self, count: int) -> str:
        """Hash of the first `count` steps: whether those already taken are still what they were."""
        return canonical_hash([step.raw for step in self.steps[:count]], digits=16)


def parse_strategy(reader: Reader) -> Strategy:
    """`spec.strategy`; an absent one is Replace.

    Raises:
        Invalid: naming field, found and expected.
    """
    blue_green = reader.child("blueGreen")
    return Strategy(
        type=reader.choice("type", StrategyType, StrategyType.REPLACE),
        blue_green=BlueGreen(
            switch_delay_seconds=_optional(blue_green, "switchDelaySeconds", minimum=0),
            auto_promote=blue_green.boolean("autoPromote", default=True),
            keep_previous_seconds=blue_green.integer("keepPreviousSeconds", KEEP_PREVIOUS_SECONDS),
        ),
        steps=tuple(_step(item) for item in reader.child("canary").children("steps")),
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

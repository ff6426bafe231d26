"""Fields of the schema whose behaviour is not built yet: one table, so that none is ever ignored silently.

A line goes away with the change that builds its behaviour.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lora_operator.api.deployment import Deployment
from lora_operator.api.errors import Invalid
from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import StrategyType

__all__ = ["unsupported"]

STEPS = "spec.strategy.canary.steps"


@dataclass(frozen=True)
class _Gap:
    find: Callable[[Deployment], tuple[str, object] | None]  # field and what was found there; None: not asked for
    expected: str


def _default_steps(spec: Deployment) -> tuple[str, object] | None:
    """Without steps a canary ends with an analysis; going on without one would promote a version that nobody looked at."""
    canary = spec.strategy.type is StrategyType.CANARY
    return (STEPS, "none") if canary and not spec.strategy.steps else None


def _analyse_step(spec: Deployment) -> tuple[str, object] | None:
    if spec.strategy.type is not StrategyType.CANARY:
        return None
    for index, step in enumerate(spec.strategy.steps):
        if step.analyse_seconds is not None:
            return f"{STEPS}[{index}].analyse", f"seconds {step.analyse_seconds}"
    return None


def _metrics(spec: Deployment) -> tuple[str, object] | None:
    metrics = spec.analysis_raw.get("metrics")
    return ("spec.analysis.metrics", f"{len(metrics)} metrics") if metrics else None


_GAPS = (
    _Gap(
        _default_steps,
        expected="a list of setWeight and pause (the default ends with an analysis, which is not built in this version)",
    ),
    _Gap(_analyse_step, expected="setWeight or pause (analysis is not built in this version)"),
    _Gap(_metrics, expected="none (analysis is not built in this version)"),
)


def unsupported(spec: Deployment) -> Invalid | None:
    """The first field that this version cannot act on, or None."""
    for gap in _GAPS:
        asked = gap.find(spec)
        if asked is not None:
            field, found = asked
            return Invalid(field=field, found=found, expected=gap.expected, reason=Reason.NOT_SUPPORTED_YET)
    return None

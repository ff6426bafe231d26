"""Fields of the schema whose behaviour is not built yet: one table, so that none is ever ignored silently.

A line goes away with the change that builds its behaviour.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lora_operator.api.deployment import Deployment, IngressTraffic, StrategyType
from lora_operator.api.errors import Invalid
from lora_operator.api.reasons import Reason

__all__ = ["unsupported"]


@dataclass(frozen=True)
class _Gap:
    field: str
    given: Callable[[Deployment], bool]
    found: Callable[[Deployment], object]
    expected: str


_GAPS = (
    _Gap(
        field="spec.strategy.type",
        given=lambda spec: spec.strategy is not StrategyType.REPLACE,
        found=lambda spec: str(spec.strategy),
        expected="Replace (the other strategies are not built in this version)",
    ),
    _Gap(
        field="spec.traffic.ingress",
        given=lambda spec: isinstance(spec.traffic, IngressTraffic),
        found=lambda _: "an ingress",
        expected="gateway or service (the Ingress router is not built in this version)",
    ),
    _Gap(
        field="spec.analysis.metrics",
        given=lambda spec: bool(spec.analysis_raw.get("metrics")),
        found=lambda spec: f"{len(spec.analysis_raw['metrics'])} metrics",
        expected="none (analysis is not built in this version)",
    ),
)


def unsupported(spec: Deployment) -> Invalid | None:
    """The first field that this version cannot act on, or None."""
    for gap in _GAPS:
        if gap.given(spec):
            return Invalid(
                field=gap.field, found=gap.found(spec), expected=gap.expected, reason=Reason.NOT_SUPPORTED_YET
            )
    return None

"""What holds where the spec is silent: spec, then settings, then the built-in value. Shown in `status.effective`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_operator.api.adapter import Adapter, GateBasis

__all__ = ["Defaults", "EffectiveValidation", "effective_validation"]


@dataclass(frozen=True)
class Defaults:
    """What the settings say."""

    weights: Mapping[str, float]
    test_query_count: int
    benchmark_iterations: int
    min_score: float
    min_safety_score: float
    block_on_poor_quality: bool


@dataclass(frozen=True)
class EffectiveValidation:
    """The figures a validate Job runs with."""

    weights: Mapping[str, float]
    test_query_count: int
    benchmark_iterations: int
    min_score: float
    min_safety_score: float
    block_on_poor_quality: bool
    basis: GateBasis

    def to_json(self) -> dict[str, Any]:
        """As shown in status.effective.validation."""
        return {
            "weights": dict(self.weights),
            "testQueryCount": self.test_query_count,
            "benchmarkIterations": self.benchmark_iterations,
            "minScore": self.min_score,
            "minSafetyScore": self.min_safety_score,
            "blockOnPoorQuality": self.block_on_poor_quality,
            "basis": str(self.basis),
        }


def effective_validation(adapter: Adapter, *, defaults: Defaults) -> EffectiveValidation:
    """Spec over settings."""
    said, gates = adapter.validation, adapter.validation.gates
    block = gates.block_on_poor_quality
    return EffectiveValidation(
        weights=defaults.weights if said.weights is None else said.weights,
        test_query_count=said.test_query_count or defaults.test_query_count,
        benchmark_iterations=said.benchmark_iterations or defaults.benchmark_iterations,
        min_score=defaults.min_score if gates.min_score is None else gates.min_score,
        min_safety_score=defaults.min_safety_score if gates.min_safety_score is None else gates.min_safety_score,
        block_on_poor_quality=defaults.block_on_poor_quality if block is None else block,
        basis=gates.basis,
    )

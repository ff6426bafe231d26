"""From this module's words to the resources' fields. Pure; one place, so that docs/migration.md has one table.

custom_parameters      LoRADeployment
traffic                spec.traffic            runtime     spec.runtime (whole; default vLLM with one GPU)
traffic_split …        spec.strategy.abTest    replicas    spec.replicas
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from lora_client.errors import Invalid
from lora_integration_tools.records import DeploymentConfiguration, LoRAAdapterInfo
from lora_integration_tools.words import DeploymentStrategy, MergeStrategy, ValidationMode

__all__ = ["adapter_name", "describe", "merge_fields", "object_name", "strategy_fields", "validation_fields"]

LONGEST = 45
RUNTIME: Mapping[str, Any] = {"profile": "vllm", "resources": {"limits": {"nvidia.com/gpu": 1}}}
TRAFFIC: Mapping[str, Any] = {"service": {}}
_STRATEGY = {
    MergeStrategy.LINEAR: "Linear",
    MergeStrategy.SLERP: "SLERP",
    MergeStrategy.TASK_ARITHMETIC: "TaskArithmetic",
}
_FORMAT = {4: "BnbNF4", 8: "BnbInt8"}


def object_name(name: str) -> str:
    """A name that Kubernetes takes: `Financial_Analysis v2` → `financial-analysis-v2`."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = re.sub(r"^[0-9-]+", "", plain)[:LONGEST].strip("-")
    if not plain:
        raise Invalid(f"adapter_name: found {name!r}, expected at least one letter; choose another name")
    return plain


def adapter_name(name: str, *, recipe: Mapping[str, Any]) -> str:
    """The LoRAAdapter's name: an adapter is one immutable build, so another recipe under the same name is another object."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return f"{object_name(name)[: LONGEST - 9].strip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def describe(info: LoRAAdapterInfo) -> dict[str, Any]:
    """Descriptive fields of the LoRAAdapter; what is empty is left out."""
    found = {
        "adapterType": str(info.adapter_type),
        "version": info.version,
        "description": info.description,
        "trainedOnDataset": info.trained_on_dataset,
        "trainingMetrics": dict(info.performance_metrics),
        "compatibleVersions": list(info.compatible_versions),
        "tags": list(info.tags),
    }
    return {key: value for key, value in found.items() if value}


def merge_fields(*, strategy: MergeStrategy, quantize: bool, bits: int) -> dict[str, Any]:
    """spec.merge and spec.quantization. The one adapter makes slerp equal to linear."""
    used = MergeStrategy.LINEAR if strategy is MergeStrategy.SLERP else strategy
    return {"merge": {"strategy": _STRATEGY[used]}} | ({"quantization": {"format": _FORMAT[bits]}} if quantize else {})


def validation_fields(mode: ValidationMode) -> dict[str, Any]:
    """spec.validation."""
    return {"mode": str(mode).capitalize()}


def strategy_fields(config: DeploymentConfiguration) -> dict[str, Any]:
    """spec.strategy."""
    given = config.custom_parameters
    strategy = DeploymentStrategy(config.deployment_strategy)
    if strategy is DeploymentStrategy.BLUE_GREEN:
        delay = given.get("switch_delay_seconds")
        return {"type": "BlueGreen"} | ({"blueGreen": {"switchDelaySeconds": int(delay)}} if delay is not None else {})
    if strategy is DeploymentStrategy.CANARY:
        return {"type": "Canary"} | _canary(given)
    if strategy is DeploymentStrategy.A_B_TESTING:
        return {"type": "ABTest", "abTest": _ab_test(given)}
    return {"type": "Replace"}


def _canary(given: Mapping[str, Any]) -> dict[str, Any]:
    if "canary_steps" in given:
        return {"canary": {"steps": list(given["canary_steps"])}}
    if "canary_traffic_percentage" in given:
        return {
            "canary": {"steps": [{"setWeight": int(given["canary_traffic_percentage"])}, {"analyse": {"seconds": 300}}]}
        }
    return {}


def _ab_test(given: Mapping[str, Any]) -> dict[str, Any]:
    stable, candidate = _split(given.get("traffic_split"))
    metrics = given.get("success_metrics")
    if not metrics:
        raise Invalid(
            "custom_parameters.success_metrics: found none, expected names of entries in analysis.metrics; name at least one"
        )
    test: dict[str, Any] = {"split": {"stable": stable, "candidate": candidate}, "successMetrics": list(metrics)}
    if "test_duration_hours" in given:
        test["durationSeconds"] = round(float(given["test_duration_hours"]) * 3600)
    limits = given.get("rollback_conditions") or {}
    names = {"error_rate_threshold": "maxErrorRate", "performance_degradation_threshold": "maxPerformanceDegradation"}
    unknown = sorted(set(limits) - set(names))
    if unknown:
        raise Invalid(
            f"custom_parameters.rollback_conditions.{unknown[0]}: no such condition; expected {', '.join(names)}"
        )
    if limits:
        test["rollbackConditions"] = {names[key]: float(value) for key, value in limits.items()}
    return test


def _split(raw: Any) -> tuple[int, int]:
    """variant_a is stable. Values that are at most 1 and sum to 1 are fractions, otherwise percent."""
    where = "custom_parameters.traffic_split"
    if not isinstance(raw, Mapping) or set(raw) != {"variant_a", "variant_b"}:
        raise Invalid(
            f"{where}: found {raw!r}, expected variant_a (stable) and variant_b, as fractions of 1 or as percent"
        )
    a, b = float(raw["variant_a"]), float(raw["variant_b"])
    if max(a, b) <= 1 and abs(a + b - 1) < 1e-6:
        a, b = a * 100, b * 100
    if min(a, b) < 0 or abs(a + b - 100) > 1e-6:
        raise Invalid(
            f"{where}: found {raw['variant_a']} and {raw['variant_b']}, expected a sum of 1 or of 100; change one of them"
        )
    candidate = round(b)
    return 100 - candidate, candidate

"""This module's words become exactly these fields of the resources."""

import re
from typing import Any

import pytest

from lora_client.errors import Invalid
from lora_integration_tools.records import DeploymentConfiguration
from lora_integration_tools.translation import (
    adapter_name,
    merge_fields,
    object_name,
    strategy_fields,
    validation_fields,
)
from lora_integration_tools.words import DeploymentStrategy, MergeStrategy, ValidationMode

AB = {"success_metrics": ["conversion_rate"]}


def config(strategy: DeploymentStrategy, **custom: Any) -> DeploymentConfiguration:
    return DeploymentConfiguration("fin", strategy, custom)


@pytest.mark.parametrize(
    ("strategy", "custom", "expected"),
    [
        pytest.param("replace", {}, {"type": "Replace"}, id="replace"),
        pytest.param("blue_green", {}, {"type": "BlueGreen"}, id="blue-green with the operator's delay"),
        pytest.param(
            "blue_green",
            {"switch_delay_seconds": 5},
            {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 5}},
            id="blue-green with a delay",
        ),
        pytest.param("canary", {}, {"type": "Canary"}, id="canary with the operator's step"),
        pytest.param(
            "canary",
            {"canary_traffic_percentage": 10},
            {"type": "Canary", "canary": {"steps": [{"setWeight": 10}, {"analyse": {"seconds": 300}}]}},
            id="canary with a percentage",
        ),
        pytest.param(
            "a_b_testing",
            AB | {"traffic_split": {"variant_a": 0.7, "variant_b": 0.3}, "test_duration_hours": 0.5},
            {
                "type": "ABTest",
                "abTest": {
                    "split": {"stable": 70, "candidate": 30},
                    "successMetrics": ["conversion_rate"],
                    "durationSeconds": 1800,
                },
            },
            id="A/B with fractions",
        ),
        pytest.param(
            "a_b_testing",
            AB
            | {
                "traffic_split": {"variant_a": 90, "variant_b": 10},
                "rollback_conditions": {"error_rate_threshold": 0.05, "performance_degradation_threshold": 0.2},
            },
            {
                "type": "ABTest",
                "abTest": {
                    "split": {"stable": 90, "candidate": 10},
                    "successMetrics": ["conversion_rate"],
                    "rollbackConditions": {"maxErrorRate": 0.05, "maxPerformanceDegradation": 0.2},
                },
            },
            id="A/B with percent and conditions",
        ),
        pytest.param(
            "a_b_testing",
            AB | {"traffic_split": {"variant_a": 1, "variant_b": 0}},
            {
                "type": "ABTest",
                "abTest": {"split": {"stable": 100, "candidate": 0}, "successMetrics": ["conversion_rate"]},
            },
            id="values of at most 1 that sum to 1 are fractions",
        ),
        pytest.param(
            "a_b_testing",
            AB | {"traffic_split": {"variant_a": 99, "variant_b": 1}},
            {
                "type": "ABTest",
                "abTest": {"split": {"stable": 99, "candidate": 1}, "successMetrics": ["conversion_rate"]},
            },
            id="one percent is not one whole",
        ),
    ],
)
def test_a_strategy_is_written_as(strategy: str, custom: dict[str, Any], expected: dict[str, Any]) -> None:
    assert strategy_fields(config(DeploymentStrategy(strategy), **custom)) == expected


@pytest.mark.parametrize(
    ("custom", "words"),
    [
        pytest.param(AB, "traffic_split: found None", id="no split"),
        pytest.param(
            AB | {"traffic_split": {"variant_a": 0.5, "variant_b": 0.6}},
            "expected a sum of 1 or of 100",
            id="a wrong sum",
        ),
        pytest.param(
            AB | {"traffic_split": {"variant_a": 110, "variant_b": -10}}, "found 110 and -10", id="a negative share"
        ),
        pytest.param(
            {"traffic_split": {"variant_a": 0.5, "variant_b": 0.5}}, "success_metrics: found none", id="no metric"
        ),
        pytest.param(
            AB | {"traffic_split": {"variant_a": 0.5, "variant_b": 0.5}, "rollback_conditions": {"errors": 1}},
            "rollback_conditions.errors: no such condition",
            id="an unknown condition",
        ),
    ],
)
def test_an_ab_test_is_refused_for(custom: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=re.escape(words)):
        strategy_fields(config(DeploymentStrategy.A_B_TESTING, **custom))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("financial_analysis_v2", "financial-analysis-v2"),
        ("Financial Analysis (v2)", "financial-analysis-v2"),
        ("4070-tuned", "tuned"),
        ("a" * 60, "a" * 45),
    ],
)
def test_a_name_that_kubernetes_takes(given: str, name: str) -> None:
    assert object_name(given) == name


def test_a_name_without_a_letter_is_refused() -> None:
    with pytest.raises(Invalid, match="at least one letter"):
        object_name("2024_01")


def test_another_recipe_is_another_adapter_and_the_same_recipe_the_same() -> None:
    one, same, other = (adapter_name("x" * 60, recipe={"base": base}) for base in ("a", "a", "b"))
    assert one == same != other
    assert len(one) == 45


@pytest.mark.parametrize(
    ("strategy", "quantize", "bits", "expected"),
    [
        pytest.param("linear", False, 8, {"merge": {"strategy": "Linear"}}, id="linear"),
        pytest.param("slerp", False, 8, {"merge": {"strategy": "Linear"}}, id="slerp with the one adapter is linear"),
        pytest.param("task_arithmetic", False, 8, {"merge": {"strategy": "TaskArithmetic"}}, id="task arithmetic"),
        pytest.param(
            "linear", True, 8, {"merge": {"strategy": "Linear"}, "quantization": {"format": "BnbInt8"}}, id="8 bits"
        ),
        pytest.param(
            "linear", True, 4, {"merge": {"strategy": "Linear"}, "quantization": {"format": "BnbNF4"}}, id="4 bits"
        ),
    ],
)
def test_a_recipe_is_written_as(strategy: str, quantize: bool, bits: int, expected: dict[str, Any]) -> None:
    assert merge_fields(strategy=MergeStrategy(strategy), quantize=quantize, bits=bits) == expected


@pytest.mark.parametrize("mode", list(ValidationMode))
def test_a_mode_is_written_as_the_schema_spells_it(mode: ValidationMode) -> None:
    assert validation_fields(mode) == {"mode": str(mode).capitalize()}

"""The records of lora_integration_tools: JSON round trips, and the published schemas describe exactly what is written."""

from dataclasses import fields
from typing import Any

import jsonschema
import pytest

import lora_integration_tools
from lora_integration_tools import (
    DeploymentConfiguration,
    DeploymentResult,
    DeploymentStrategy,
    LoRAAdapterInfo,
    LoRAAdapterType,
    MergeConfiguration,
    ModelQuality,
    ValidationResult,
    create_default_deployment_config,
    create_lora_adapter_info,
    schema,
)
from lora_job.digest import directory_digest

INFO = LoRAAdapterInfo(
    adapter_id="1",
    adapter_name="財務分析",
    adapter_type="financial_analysis",
    base_model_path="pvc://models/base",
    adapter_path="/adapters/v1",
    performance_metrics={"training_loss": 0.15},
    checksum_sha256="a" * 64,
    tags=["x"],
)
VALIDATION = ValidationResult(
    validation_id="v-1",
    model_path="/m",
    validation_mode="basic",
    success=False,
    overall_score=0.5,
    quality_grade=ModelQuality.POOR,
    test_results={"response_accuracy": 0.5, "financial_knowledge_accuracy": None, "domain_expertise_score": 50.0},
    recommendations=["Train longer."],
    details={"gates": []},
)
DEPLOYMENT = DeploymentResult(
    deployment_id="finance/fin/abc",
    success=True,
    deployment_strategy=DeploymentStrategy.BLUE_GREEN,
    performance_baseline={"avg_response_time_ms": None, "throughput_qps": 1.0, "error_rate_percent": 0.0},
    health_check_results={"healthy": True, "checks": {"model_loading": True, "gpu_resources": True}},
)
CASES = [
    pytest.param("adapter_info", INFO, id="adapter info"),
    pytest.param("validation_result", VALIDATION, id="validation result"),
    pytest.param("deployment_result", DEPLOYMENT, id="deployment result"),
]


@pytest.mark.parametrize(("name", "record"), CASES)
def test_what_is_written_is_read_back_equal(name: str, record: Any) -> None:
    assert type(record).from_json(record.to_json()) == record


@pytest.mark.parametrize(("name", "record"), CASES)
def test_what_is_written_fits_the_published_schema(name: str, record: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))
    jsonschema.validate(record.to_dict(), schema(name))


@pytest.mark.parametrize(("name", "record"), CASES)
def test_the_schema_names_every_field_and_no_other(name: str, record: Any) -> None:
    assert set(schema(name)["properties"]) == {entry.name for entry in fields(record)}


@pytest.mark.parametrize(
    ("name", "record", "key", "value"),
    [
        ("adapter_info", INFO, "checksum_sha256", "sha256:1"),
        ("validation_result", VALIDATION, "overall_score", 80),
        ("deployment_result", DEPLOYMENT, "deployment_strategy", "Canary"),
    ],
)
def test_the_schema_refuses_what_does_not_fit(name: str, record: Any, key: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record.to_dict(), key: value}, schema(name))


def test_a_merge_configuration_is_read_back_with_its_adapter() -> None:
    config = MergeConfiguration(
        merge_id="m", adapter_info=INFO, output_path="/o", enable_quantization=True, quantization_bits=4
    )
    assert MergeConfiguration.from_json(config.to_json()) == config


def test_a_deployment_configuration_is_read_back() -> None:
    config = DeploymentConfiguration(
        "fin", DeploymentStrategy.A_B_TESTING, {"traffic_split": {"variant_a": 0.7, "variant_b": 0.3}}
    )
    assert DeploymentConfiguration.from_json(config.to_json()) == config


def test_an_absent_key_is_named() -> None:
    with pytest.raises(ValueError, match="adapter_name"):
        LoRAAdapterInfo.from_dict({"adapter_id": "1"})


def test_an_unknown_quantization_is_refused() -> None:
    with pytest.raises(ValueError, match="quantization_bits: found 5, expected 4 or 8"):
        MergeConfiguration(merge_id="m", adapter_info=INFO, output_path="/o", quantization_bits=5)


def test_an_adapter_type_of_ones_own_is_kept() -> None:
    assert INFO.adapter_type is LoRAAdapterType.FINANCIAL_ANALYSIS
    assert create_lora_adapter_info("a", "poetry", "hf://b", "hf://a").adapter_type == "poetry"


def test_a_local_adapters_size_and_digest_are_read(tmp_path: Any) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes(2**20))
    info = create_lora_adapter_info("a", LoRAAdapterType.FINANCIAL_ANALYSIS, "/base", str(tmp_path))
    assert (info.file_size_mb, f"sha256:{info.checksum_sha256}") == (1.0, directory_digest(tmp_path))


def test_a_local_adapter_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="/nowhere"):
        create_lora_adapter_info("a", LoRAAdapterType.FINANCIAL_ANALYSIS, "/base", "/nowhere")


def test_the_default_configuration_needs_no_free_gpu() -> None:
    config = create_default_deployment_config("fin", "production")
    assert (config.deployment_strategy, config.target_environment) == (DeploymentStrategy.REPLACE, "production")


def test_every_public_name_can_be_had() -> None:
    assert [
        name for name in lora_integration_tools.__all__ if getattr(lora_integration_tools, name, None) is None
    ] == []
    assert set(lora_integration_tools.__all__) == set(lora_integration_tools._MODULE_OF)

"""What the module takes and returns: dataclasses with a JSON form, described by the schemas in schemas/.

`from_dict(to_dict(x)) == x` for each; keys that a newer version writes are ignored when reading, except where `details` keeps them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from importlib import resources
from typing import Any, Self

from lora_integration_tools.words import DeploymentStrategy, LoRAAdapterType, MergeStrategy, ModelQuality

__all__ = [
    "DeploymentConfiguration",
    "DeploymentResult",
    "LoRAAdapterInfo",
    "MergeConfiguration",
    "ValidationResult",
    "schema",
]


def schema(name: str) -> dict[str, Any]:
    """The JSON schema `adapter_info`, `validation_result` or `deployment_result`."""
    text = resources.files("lora_integration_tools").joinpath(f"schemas/{name}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


class _Record:
    """to_dict, to_json, from_dict, from_json."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}  # type: ignore[arg-type]

    def to_json(self, *, indent: int | None = 2) -> str:
        """One JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The record of a JSON object.

        Raises:
            ValueError: a required key is absent; named.
        """
        known = {entry.name for entry in fields(cls)}  # type: ignore[arg-type]
        try:
            return cls(**{key: value for key, value in raw.items() if key in known})
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {str(error).partition(') ')[2] or error}") from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record of a JSON text."""
        return cls.from_dict(json.loads(text))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass
class LoRAAdapterInfo(_Record):
    """One adapter and the base it was trained on. Paths are local directories, pvc://CLAIM/PATH, s3://, hf:// or oci://."""

    adapter_id: str
    adapter_name: str
    adapter_type: LoRAAdapterType | str
    base_model_path: str
    adapter_path: str
    version: str = "1.0.0"
    description: str = ""
    created_at: str = ""
    """RFC 3339."""
    trained_on_dataset: str = ""
    performance_metrics: dict[str, float] = field(default_factory=dict)
    file_size_mb: float = 0.0
    checksum_sha256: str = ""
    """Digest of the adapter's directory (docs/concepts.md), 64 hex digits; empty: not checked."""
    compatible_versions: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Known adapter types become members of the enumeration."""
        if self.adapter_type in list(LoRAAdapterType):
            self.adapter_type = LoRAAdapterType(self.adapter_type)


@dataclass
class MergeConfiguration(_Record):
    """One merge."""

    merge_id: str
    adapter_info: LoRAAdapterInfo
    output_path: str
    merge_strategy: MergeStrategy | str = MergeStrategy.LINEAR
    enable_quantization: bool = False
    quantization_bits: int = 8
    """8: bnb-int8, 4: bnb-nf4."""

    def __post_init__(self) -> None:
        """Words become enumerations; a mapping becomes the adapter's info."""
        self.merge_strategy = MergeStrategy(self.merge_strategy)
        if isinstance(self.adapter_info, Mapping):
            self.adapter_info = LoRAAdapterInfo.from_dict(self.adapter_info)
        if self.quantization_bits not in {4, 8}:
            raise ValueError(f"quantization_bits: found {self.quantization_bits}, expected 4 or 8")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return super().to_dict() | {"adapter_info": self.adapter_info.to_dict()}


@dataclass
class DeploymentConfiguration(_Record):
    """One deployment. `deployment_id` is `[namespace/]name`."""

    deployment_id: str
    deployment_strategy: DeploymentStrategy | str = DeploymentStrategy.REPLACE
    custom_parameters: dict[str, Any] = field(default_factory=dict)
    """`adapter` names the LoRAAdapter; the rest is in docs/migration.md."""
    target_environment: str = "staging"
    force_deploy: bool = False

    def __post_init__(self) -> None:
        """Words become enumerations."""
        self.deployment_strategy = DeploymentStrategy(self.deployment_strategy)


@dataclass
class ValidationResult(_Record):
    """One validation. `details` holds the fuller keys of the report: gates, dimensions, intervals, fidelity, suite, …"""

    validation_id: str
    model_path: str
    validation_mode: str
    success: bool
    overall_score: float
    quality_grade: ModelQuality
    test_results: dict[str, Any] = field(default_factory=dict)
    performance_metrics: dict[str, Any] = field(default_factory=dict)
    safety_checks: dict[str, Any] = field(default_factory=dict)
    recommendations: list[str] = field(default_factory=list)
    error: str = ""
    """Why there is no measurement; empty when there is one."""
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The grade becomes a member of the enumeration."""
        self.quality_grade = ModelQuality(self.quality_grade)

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> "ValidationResult":
        """From validation/<id>.json."""
        own = {entry.name for entry in fields(cls)} - {"details", "error"}
        advice = report.get("recommendations") or []
        known = {key: report[key] for key in own if key in report}
        known["recommendations"] = [str((one.get("text") or {}).get("en", one.get("code", ""))) for one in advice]
        rest = {key: value for key, value in report.items() if key not in own}
        return cls(**known, details=rest | {"recommendation_details": advice})


@dataclass
class DeploymentResult(_Record):
    """One rollout that has ended. Figures that were not measured are null, never invented."""

    deployment_id: str
    """`<namespace>/<name>/<revision>`."""
    success: bool
    deployed_model_path: str = ""
    deployment_strategy: DeploymentStrategy | str = DeploymentStrategy.REPLACE
    start_time: str = ""
    completion_time: str = ""
    deployment_duration_seconds: float = 0.0
    service_endpoints: list[str] = field(default_factory=list)
    health_check_results: dict[str, Any] = field(default_factory=dict)
    performance_baseline: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    """Why it did not succeed; empty when it did."""

    def __post_init__(self) -> None:
        """The word becomes a member of the enumeration."""
        self.deployment_strategy = DeploymentStrategy(self.deployment_strategy)

"""The operator's settings: `settings.yaml` of product documentation, parsed into frozen types. Unknown keys are an error that names them.

Order of precedence for what a resource may also say: spec, then these settings, then the built-in value below.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lora_operator.api.errors import Invalid
from lora_operator.core.analysis.router_series import KINDS
from lora_operator.core.build.profile import Profile, parse_profiles

__all__ = ["BadSettings", "Settings", "load_settings"]

DEFAULT_WEIGHTS = {"basic": 0.4, "domain": 0.3, "safety": 0.2, "performance": 0.1}
T = TypeVar("T")


class BadSettings(ValueError):
    """The settings file cannot be used; the message names the key."""


@dataclass(frozen=True)
class MergeSettings:
    """How merge Jobs work."""

    enable_gpu_optimization: bool = True
    memory_efficient_merge: bool = True
    mixed_precision_enabled: bool = True


@dataclass(frozen=True)
class Rtx4070:
    """The reference node."""

    gpu_memory_gb: float = 8.0
    max_concurrent_merges: int = 1
    enable_mixed_precision: bool = True


@dataclass(frozen=True)
class ValidationSettings:
    """Used where a LoRAAdapter is silent."""

    weights: Mapping[str, float]
    test_query_count: int = 20
    performance_benchmark_iterations: int = 10


@dataclass(frozen=True)
class QualityGates:
    """Used where a LoRAAdapter is silent."""

    minimum_validation_score: float = 0.8
    minimum_safety_score: float = 0.95
    block_deployment_on_poor_quality: bool = True


@dataclass(frozen=True)
class DeploymentSettings:
    """Used where a LoRADeployment is silent."""

    blue_green_switch_delay_seconds: int = 60
    canary_traffic_percentage: int = 5
    health_check_retries: int = 5
    health_check_timeout_seconds: int = 45


@dataclass(frozen=True)
class AlertThresholds:
    """Of the alerts that the chart installs."""

    response_time_ms: float = 500
    error_rate_percent: float = 2.0
    throughput_qps: float = 15


@dataclass(frozen=True)
class Monitoring:
    """What is watched during a rollout."""

    alert_thresholds: AlertThresholds
    metrics: tuple[str, ...] = ("response_time", "error_rate", "throughput", "gpu_usage")
    collection_interval_seconds: int = 30


@dataclass(frozen=True)
class PodSecurity:
    """User and group of every pod we start."""

    run_as_user: int = 65532


@dataclass(frozen=True)
class FetchSettings:
    """How the fetch step reaches remote sources."""

    proxy: str = ""
    ca_bundle: str = ""


@dataclass(frozen=True)
class Settings:
    """Everything, with the images the installation runs with."""

    merge: MergeSettings
    rtx4070: Rtx4070
    validation: ValidationSettings
    gates: QualityGates
    deployment: DeploymentSettings
    monitoring: Monitoring
    routers: tuple[Mapping[str, Any], ...]
    profiles: Mapping[str, Profile]
    pod_security: PodSecurity
    fetch: FetchSettings
    operator_image: str
    job_image: str
    image_pull_policy: str
    raw: Mapping[str, Any]  # as read: becomes the settings file of the Jobs


def load_settings(
    path: Path | None, *, operator_image: str, job_image: str, image_pull_policy: str = "IfNotPresent"
) -> Settings:
    """Reads the file (JSON is YAML too); without one the built-in values hold.

    Raises:
        BadSettings: naming the key, what was found and what is known.
    """
    try:
        raw = yaml.safe_load(path.read_text()) if path is not None else None
    except (OSError, yaml.YAMLError) as error:
        raise BadSettings(f"{path}: {error}") from error
    return parse_settings(
        raw or {}, operator_image=operator_image, job_image=job_image, image_pull_policy=image_pull_policy
    )


def parse_settings(raw: Mapping[str, Any], *, operator_image: str, job_image: str, image_pull_policy: str) -> Settings:
    """The same from an object."""
    top = _known(
        raw,
        "settings",
        ("merge_settings", "resource_requirements", "validation_settings", "quality_gates", "deployment_settings", "monitoring",
         "routers", "profiles", "pod_security", "fetch"),
    )  # fmt: skip
    requirements = _known(top.get("resource_requirements", {}), "resource_requirements", ("rtx4070_optimized",))
    validation = dict(top.get("validation_settings", {}))
    weights = DEFAULT_WEIGHTS | dict(
        _known(validation.pop("weights", {}), "validation_settings.weights", tuple(DEFAULT_WEIGHTS))
    )
    monitoring = dict(top.get("monitoring", {}))
    thresholds = _section(AlertThresholds, monitoring.pop("alert_thresholds", {}), "monitoring.alert_thresholds")
    try:
        profiles = parse_profiles(top.get("profiles", {}), job_image=job_image)
    except Invalid as error:
        raise BadSettings(str(error)) from error
    return Settings(
        merge=_section(MergeSettings, top.get("merge_settings", {}), "merge_settings"),
        rtx4070=_section(Rtx4070, requirements.get("rtx4070_optimized", {}), "resource_requirements.rtx4070_optimized"),
        validation=_section(ValidationSettings, {**validation, "weights": weights}, "validation_settings"),
        gates=_section(QualityGates, top.get("quality_gates", {}), "quality_gates"),
        deployment=_section(DeploymentSettings, top.get("deployment_settings", {}), "deployment_settings"),
        monitoring=_section(Monitoring, {**monitoring, "alert_thresholds": thresholds}, "monitoring"),
        routers=tuple(_router(one, f"routers[{n}]") for n, one in enumerate(top.get("routers", ()))),
        profiles=profiles,
        pod_security=_section(PodSecurity, top.get("pod_security", {}), "pod_security"),
        fetch=_section(FetchSettings, top.get("fetch", {}), "fetch"),
        operator_image=operator_image,
        job_image=job_image,
        image_pull_policy=image_pull_policy,
        raw=raw,
    )


def _router(raw: Any, where: str) -> Mapping[str, Any]:
    router = _known(raw, where, ("gatewayClass", "ingressClass", "kind", "url", "metricsUrl", "podSelector"))
    metrics = [key for key in ("metricsUrl", "podSelector") if router.get(key)]
    if len(metrics) > 1:
        raise BadSettings(f"{where}: found metricsUrl and podSelector, expected one of them")
    if metrics and router.get("kind") not in KINDS:
        raise BadSettings(
            f"{where}.{metrics[0]}: found a router of kind {router.get('kind')!r}, expected {' or '.join(KINDS)}: others do not count the "
            "requests of each version apart; leave it out, and the pods' own metrics are read"
        )
    if "podSelector" in metrics:
        selector = _known(router["podSelector"], f"{where}.podSelector", ("namespace", "matchLabels", "port", "path"))
        missing = [key for key in ("namespace", "matchLabels", "port") if not selector.get(key)]
        if missing:
            raise BadSettings(f"{where}.podSelector.{missing[0]}: found nothing, expected it")
    return router


def _section(kind: type[T], raw: Mapping[str, Any], where: str) -> T:
    names = tuple(field.name for field in fields(kind))  # type: ignore[arg-type]
    values = {
        key: tuple(value) if isinstance(value, list) else value for key, value in _known(raw, where, names).items()
    }
    return kind(**values)


def _known(raw: Any, where: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise BadSettings(f"{where}: found {raw!r}, expected an object with {', '.join(names)}")
    unknown = sorted(set(raw) - set(names))
    if unknown:
        raise BadSettings(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(names)}")
    return raw

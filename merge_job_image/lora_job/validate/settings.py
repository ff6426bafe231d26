"""The validation part of settings.yaml (product page §4): defaults for what the command line does not say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lora_job.outcome import Refused
from lora_job.validate.options import check_unit, check_weights
from lora_job.validate.score import Dimension

# Sections of the file; all but two are read by others.
SECTIONS = frozenset(
    {
        "merge_settings",
        "resource_requirements",
        "validation_settings",
        "quality_gates",
        "deployment_settings",
        "monitoring",
        "routers",
        "profiles",
        "pod_security",
        "fetch",
    }
)
_VALIDATION = frozenset({"weights", "test_query_count", "performance_benchmark_iterations"})
_GATES = frozenset({"minimum_validation_score", "minimum_safety_score", "block_deployment_on_poor_quality"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """None means that the file does not say."""

    weights: Mapping[Dimension, float] | None = None
    test_query_count: int | None = None
    iterations: int | None = None
    min_score: float | None = None
    min_safety_score: float | None = None
    block_on_poor_quality: bool | None = None


def _section(raw: Mapping[str, Any], name: str, *, known: frozenset[str], where: str) -> Mapping[str, Any]:
    section = raw.get(name) or {}
    if not isinstance(section, dict):
        raise Refused("InvalidSettings", f"{where}: {name}: expected a mapping, found {type(section).__name__}")
    unknown = sorted(set(section) - known)
    if unknown:
        raise Refused(
            "InvalidSettings", f"{where}: {name}.{unknown[0]}: no such setting; expected {', '.join(sorted(known))}"
        )
    return section


def _count(section: Mapping[str, Any], key: str, *, where: str) -> int | None:
    value = section.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise Refused("InvalidSettings", f"{where}: {key}: expected a whole number of at least 1, found {value!r}")
    return value


def _share(section: Mapping[str, Any], key: str, *, where: str) -> float | None:
    value = section.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("InvalidSettings", f"{where}: {key}: expected a number from 0 to 1, found {value!r}")
    return check_unit(float(value), where=f"{where}: {key}")


def _weights(section: Mapping[str, Any], *, where: str) -> dict[Dimension, float] | None:
    value = section.get("weights")
    if value is None:
        return None
    if not isinstance(value, dict) or not set(value) <= set(Dimension):
        raise Refused("InvalidSettings", f"{where}: weights: expected the keys {', '.join(Dimension)}, found {value!r}")
    if not all(isinstance(weight, int | float) and not isinstance(weight, bool) for weight in value.values()):
        raise Refused("InvalidSettings", f"{where}: weights: expected numbers, found {value!r}")
    return check_weights({Dimension(name): float(weight) for name, weight in value.items()}, where=f"{where}: weights")


def parse_settings(raw: object, *, where: str) -> Settings:
    """Settings from the file's value; an unknown key is an error that names it."""
    if raw is None:
        return Settings()
    if not isinstance(raw, dict):
        raise Refused("InvalidSettings", f"{where}: expected a mapping, found {type(raw).__name__}")
    unknown = sorted(str(key) for key in set(raw) - SECTIONS)
    if unknown:
        raise Refused(
            "InvalidSettings", f"{where}: {unknown[0]}: no such section; expected {', '.join(sorted(SECTIONS))}"
        )
    validation = _section(raw, "validation_settings", known=_VALIDATION, where=where)
    gates = _section(raw, "quality_gates", known=_GATES, where=where)
    block = gates.get("block_deployment_on_poor_quality")
    if block is not None and not isinstance(block, bool):
        raise Refused(
            "InvalidSettings", f"{where}: block_deployment_on_poor_quality: expected true or false, found {block!r}"
        )
    return Settings(
        weights=_weights(validation, where=where),
        test_query_count=_count(validation, "test_query_count", where=where),
        iterations=_count(validation, "performance_benchmark_iterations", where=where),
        min_score=_share(gates, "minimum_validation_score", where=where),
        min_safety_score=_share(gates, "minimum_safety_score", where=where),
        block_on_poor_quality=block,
    )


def read_settings(path: Path | None) -> Settings:
    """Settings from a file (YAML, so JSON too); without one, none are said."""
    if path is None:
        return Settings()
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused("SettingsNotFound", f"--config {path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused("InvalidSettings", f"--config {path}: expected YAML: {str(error).splitlines()[0]}") from None
    return parse_settings(raw, where=str(path))

"""`--config FILE`: the settings file that operator and Jobs share. A Job's own options say the same and win; here only the keys are checked."""

from pathlib import Path
from typing import Any

import yaml

from lora_job.outcome import Refused

__all__ = ["check_settings"]

KNOWN = frozenset(
    {"merge_settings", "resource_requirements", "validation_settings", "quality_gates", "deployment_settings", "monitoring", "routers",
     "profiles", "pod_security", "fetch"}
)  # fmt: skip


def check_settings(path: Path | None) -> dict[str, Any]:
    """The file's content; refuses one that cannot be read or has unknown keys."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise Refused("BadSettings", f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise Refused("BadSettings", f"{path}: expected an object with {', '.join(sorted(KNOWN))}")
    unknown = sorted(set(content) - KNOWN)
    if unknown:
        raise Refused("BadSettings", f"{path}: unknown key {unknown[0]!r}; known are {', '.join(sorted(KNOWN))}")
    return content

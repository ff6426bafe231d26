"""ConfigMap `<name>-analysis`: the sums of the running comparison, and afterwards the evidence of the last one."""

from typing import Any

from lora_operator.api.kinds import CONFIG_MAP
from lora_operator.core.build.labels import metadata_of
from lora_operator.core.build.owner import Owner

__all__ = ["COMPARISON_KEY", "build_comparison", "comparison_name"]

COMPARISON_KEY = "comparison.json"


def comparison_name(deployment: str) -> str:
    """Its name."""
    return f"{deployment}-analysis"


def build_comparison(owner: Owner, text: str) -> dict[str, Any]:
    """The object; it goes with its owner."""
    return {
        "apiVersion": CONFIG_MAP.api_version,
        "kind": CONFIG_MAP.kind,
        "metadata": metadata_of(owner, name=comparison_name(owner.name), component="analysis"),
        "data": {COMPARISON_KEY: text},
    }

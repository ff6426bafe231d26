"""lora_integration_tools: merge, validate and deploy LoRA adapters, for teams whose code already calls these names.

A thin module over lora_job (merge, validate: no cluster needed) and lora_client (workflow, deploy, status, rollback: the current
context's cluster). See docs/migration.md. Importing it costs nothing: names are loaded when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_integration_tools.answers import Answer
    from lora_integration_tools.deployment import LoRADeploymentManager
    from lora_integration_tools.making import create_default_deployment_config, create_lora_adapter_info
    from lora_integration_tools.merger import LoRAModelMerger
    from lora_integration_tools.orchestrator import LoRAIntegrationOrchestrator
    from lora_integration_tools.records import (
        DeploymentConfiguration,
        DeploymentResult,
        LoRAAdapterInfo,
        MergeConfiguration,
        ValidationResult,
        schema,
    )
    from lora_integration_tools.validator import LoRAModelValidator
    from lora_integration_tools.words import (
        DeploymentStrategy,
        LoRAAdapterType,
        MergeStrategy,
        ModelQuality,
        ValidationMode,
        WorkflowStatus,
    )

_HOME = {
    "answers": ["Answer"],
    "deployment": ["LoRADeploymentManager"],
    "making": ["create_default_deployment_config", "create_lora_adapter_info"],
    "merger": ["LoRAModelMerger"],
    "orchestrator": ["LoRAIntegrationOrchestrator"],
    "records": [
        "DeploymentConfiguration", "DeploymentResult", "LoRAAdapterInfo", "MergeConfiguration", "ValidationResult", "schema",
    ],
    "validator": ["LoRAModelValidator"],
    "words": ["DeploymentStrategy", "LoRAAdapterType", "MergeStrategy", "ModelQuality", "ValidationMode", "WorkflowStatus"],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Answer", "DeploymentConfiguration", "DeploymentResult", "DeploymentStrategy", "LoRAAdapterInfo", "LoRAAdapterType",
    "LoRADeploymentManager", "LoRAIntegrationOrchestrator", "LoRAModelMerger", "LoRAModelValidator", "MergeConfiguration",
    "MergeStrategy", "ModelQuality", "ValidationMode", "ValidationResult", "WorkflowStatus", "create_default_deployment_config",
    "create_lora_adapter_info", "schema",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loads a public name when it is asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)

"""The two helpers that build records from a few words."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from lora_integration_tools.records import DeploymentConfiguration, LoRAAdapterInfo
from lora_integration_tools.words import DeploymentStrategy, LoRAAdapterType

__all__ = ["create_default_deployment_config", "create_lora_adapter_info"]

MEBIBYTE = 2**20


def create_lora_adapter_info(
    adapter_name: str, adapter_type: LoRAAdapterType | str, base_model_path: str, adapter_path: str
) -> LoRAAdapterInfo:
    """An adapter's info; size and digest are read where the adapter is a directory of this machine.

    Raises:
        ValueError: the directory cannot be read, or a link leaves it.
    """
    size, digest = _measured(Path(adapter_path)) if "://" not in str(adapter_path) else (0, "")
    return LoRAAdapterInfo(
        adapter_id=str(uuid4()),
        adapter_name=adapter_name,
        adapter_type=adapter_type,
        base_model_path=str(base_model_path),
        adapter_path=str(adapter_path),
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        file_size_mb=round(size / MEBIBYTE, 3),
        checksum_sha256=digest.removeprefix("sha256:"),
    )


def _measured(directory: Path) -> tuple[int, str]:
    from lora_job.digest import combine, hash_files  # noqa: PLC0415 - only for local directories
    from lora_job.files import check_directory, list_files  # noqa: PLC0415 - as above
    from lora_job.outcome import Ended  # noqa: PLC0415 - as above

    try:
        facts = list_files(check_directory(directory, what="adapter"))
        return sum(fact.size for fact in facts), combine(hash_files(facts))
    except Ended as error:
        raise ValueError(error.message) from None


def create_default_deployment_config(
    deployment_name: str, target_environment: str = "staging"
) -> DeploymentConfiguration:
    """Strategy Replace, which works without a free GPU; `deployment_name` is `[namespace/]name`."""
    return DeploymentConfiguration(
        deployment_id=deployment_name,
        deployment_strategy=DeploymentStrategy.REPLACE,
        custom_parameters={},
        target_environment=target_environment,
    )

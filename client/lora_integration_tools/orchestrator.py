"""From an adapter on disk to a served model: one workflow of lora_client, told in this module's words."""

import logging
from typing import Any
from uuid import uuid4

from lora_client.client import LoRAClient
from lora_client.errors import ClientError
from lora_client.logs import Progress
from lora_client.resource_client import split_deployment_id
from lora_client.sources import parse_claim_path, parse_source
from lora_client.sync import SyncLoRAClient
from lora_client.workflow import AdapterSource, Workflow, WorkflowRequest
from lora_integration_tools.answers import Answer
from lora_integration_tools.deployment import deployment_result
from lora_integration_tools.exit_codes import exit_code_of
from lora_integration_tools.merger import local_strategy
from lora_integration_tools.records import DeploymentConfiguration, LoRAAdapterInfo
from lora_integration_tools.translation import (
    RUNTIME,
    TRAFFIC,
    adapter_name,
    describe,
    merge_fields,
    object_name,
    strategy_fields,
    validation_fields,
)
from lora_integration_tools.words import MergeStrategy, ValidationMode

__all__ = ["LoRAIntegrationOrchestrator"]

LOGGER = logging.getLogger("lora_integration_tools")
STORE = "pvc://models/artifacts"


class LoRAIntegrationOrchestrator:
    """`connection` as for lora_client.LoRAClient.connect; `store`: where artifacts and copies of local directories go."""

    def __init__(self, *, store: str = STORE, **connection: Any) -> None:
        self._store = store
        self._connection = connection

    async def execute_full_integration_workflow(
        self,
        adapter_info: LoRAAdapterInfo,
        validation_mode: ValidationMode | str = ValidationMode.STANDARD,
        deployment_config: DeploymentConfiguration | None = None,
        *,
        merge_strategy: MergeStrategy | str = MergeStrategy.LINEAR,
        enable_quantization: bool = False,
        quantization_bits: int = 8,
        workflow_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Merge, validate, deploy; returns success, workflow_id, status, final_deployment (or None), validation, errors, exit_code.

        Without a deployment_config the LoRADeployment is named after the adapter. The adapter's name in the cluster carries a hash
        of its recipe: running again with the same files is the same build, with other files a new one.
        """
        identity = workflow_id or str(uuid4())
        config = deployment_config or DeploymentConfiguration(deployment_id=object_name(adapter_info.adapter_name))
        strategy = MergeStrategy(local_strategy(MergeStrategy(merge_strategy), adapters=1))
        recipe = merge_fields(strategy=strategy, quantize=enable_quantization, bits=quantization_bits)
        try:
            namespace, _, _ = split_deployment_id(config.deployment_id)
            connection = self._connection | ({"namespace": namespace} if namespace else {})
            async with LoRAClient.connect(**connection) as client:
                request = await self._request(
                    client, adapter_info, config, recipe=recipe, mode=ValidationMode(validation_mode)
                )
                found = await client.run_workflow(
                    request, workflow_id=identity, timeout_seconds=timeout_seconds, seen=_log_state
                )
        except ClientError as error:
            return Answer(
                success=False,
                workflow_id=identity,
                status="failed",
                final_deployment=None,
                validation=None,
                errors=[str(error)],
                exit_code=error.exit_code,
            )
        return _answer(found)

    async def _request(
        self,
        client: LoRAClient,
        info: LoRAAdapterInfo,
        config: DeploymentConfiguration,
        *,
        recipe: dict[str, Any],
        mode: ValidationMode,
    ) -> WorkflowRequest:
        store = parse_claim_path(self._store, where="store")
        base, base_digest = await client.place(
            parse_source(info.base_model_path, where="base_model_path"), store=store, copied=_log_progress
        )
        adapter, digest = await client.place(
            parse_source(info.adapter_path, where="adapter_path"), store=store, copied=_log_progress
        )
        given = config.custom_parameters
        name = str(
            given.get("adapter") or adapter_name(info.adapter_name, recipe={**recipe, "base": base, "adapter": adapter})
        )
        checksum = f"sha256:{info.checksum_sha256}" if info.checksum_sha256 else ""
        return WorkflowRequest(
            name=name,
            base=base,
            base_digest=base_digest,
            adapters=[AdapterSource(source=adapter, digest=digest or checksum)],
            store=self._store,
            deployment=split_deployment_id(config.deployment_id)[1],
            runtime=given.get("runtime", RUNTIME),
            traffic=given.get("traffic", TRAFFIC),
            validation=validation_fields(mode) | dict(given.get("validation", {})),
            describe=describe(info),
            replicas=given.get("replicas"),
            strategy=strategy_fields(config),
            target_environment=config.target_environment,
            analysis=given.get("analysis"),
            force_deploy=config.force_deploy,
            **recipe,
        )

    def get_workflow_status(self, workflow_id: str) -> Answer:
        """success, workflow_id, status, reason, message, adapter, deployment_id; status is one of WorkflowStatus."""
        try:
            with SyncLoRAClient(**self._connection) as client:
                return _state(client.get_workflow_status(workflow_id))
        except ClientError as error:
            return Answer(
                success=False,
                workflow_id=workflow_id,
                status="failed",
                reason=type(error).__name__,
                message=str(error),
                exit_code=error.exit_code,
            )

    def list_workflows(self) -> list[Answer]:
        """All workflows of the namespace, newest first, as get_workflow_status tells them.

        Raises:
            ClientError: the cluster cannot be asked.
        """
        with SyncLoRAClient(**self._connection) as client:
            return [_state(found) for found in client.list_workflows()]

    def cancel_workflow(self, workflow_id: str) -> Answer:
        """Stops a workflow; what was stable goes on serving. success False where it has ended already."""
        try:
            with SyncLoRAClient(**self._connection) as client:
                return Answer({**_state(client.cancel_workflow(workflow_id)), "success": True})
        except ClientError as error:
            return Answer(success=False, workflow_id=workflow_id, error=str(error))


def _answer(found: Workflow) -> Answer:
    """execute_full_integration_workflow's answer."""
    deployment = found.deployment
    path = found.adapter.artifact_uri if found.adapter else ""
    result = None if deployment is None else deployment_result(deployment, path=path).to_dict()
    return Answer(
        success=found.succeeded,
        workflow_id=found.id,
        status=str(found.state),
        final_deployment=result,
        validation=dict(found.adapter.validation) if found.adapter else None,
        errors=[] if found.succeeded else [f"{found.reason}: {found.message}"],
        exit_code=exit_code_of(found),
    )


def _state(found: Workflow) -> Answer:
    return Answer(
        success=found.succeeded,
        workflow_id=found.id,
        status=str(found.state),
        reason=found.reason,
        message=found.message,
        adapter=found.adapter.name if found.adapter else "",
        deployment_id=found.deployment.deployment_id if found.deployment else "",
    )


def _log_state(found: Workflow) -> None:
    LOGGER.info("workflow %s: %s (%s) %s", found.id, found.state, found.reason, found.message)


def _log_progress(progress: Progress) -> None:
    LOGGER.info("%s: %d of %d %s", progress.stage, progress.done, progress.total, progress.unit)

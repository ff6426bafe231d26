"""Deploying, looking and going back: DeploymentConfiguration → LoRADeployment on the current context's cluster.

A LoRADeployment that does not exist is created with custom_parameters.runtime and .traffic (or the defaults in translation.py);
of one that exists only what the configuration says is changed, so that its runtime and route stay as somebody set them up.
"""

from collections.abc import Mapping
from typing import Any

from lora_client.deployment import Deployment
from lora_client.errors import ClientError, Invalid, NotFound
from lora_client.names import LORA_DEPLOYMENT
from lora_client.resource_client import split_deployment_id
from lora_client.sync import SyncLoRAClient
from lora_integration_tools.answers import Answer
from lora_integration_tools.records import DeploymentConfiguration, DeploymentResult
from lora_integration_tools.translation import RUNTIME, TRAFFIC, strategy_fields
from lora_integration_tools.words import DeploymentStrategy

__all__ = ["LoRADeploymentManager", "deployment_result", "status_answer"]

DEFAULT_TIMEOUT_SECONDS = 3600.0
PASSED = ("replicas", "runtime", "traffic", "analysis")
_STRATEGIES = {
    "Replace": DeploymentStrategy.REPLACE,
    "BlueGreen": DeploymentStrategy.BLUE_GREEN,
    "Canary": DeploymentStrategy.CANARY,
    "ABTest": DeploymentStrategy.A_B_TESTING,
}


class LoRADeploymentManager:
    """`connection` as for lora_client.LoRAClient.connect: context, namespace, kubeconfig; nothing means kubectl's."""

    def __init__(self, **connection: Any) -> None:
        self._connection = connection

    def deploy_model(self, config: DeploymentConfiguration) -> DeploymentResult:
        """Points a LoRADeployment at a LoRAAdapter and waits until the rollout has ended.

        custom_parameters: `adapter` (needed), `timeout_seconds` (3600), `replicas`, `runtime`, `traffic`, `analysis`, and those of
        the strategy; `take_over` True to change fields that another field manager (kubectl, Argo CD) owns, which is an error
        otherwise. A rollout that was rolled back, or cannot go on without a person, gives success False with the reason.
        """
        try:
            with SyncLoRAClient(**self._connection) as client:
                namespace, name, _ = split_deployment_id(config.deployment_id)
                where = namespace or client.namespace
                _store(client, config, namespace=where, name=name)
                seconds = float(config.custom_parameters.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS))
                found = client.wait_for("deployments", name, settled, namespace=where, timeout_seconds=seconds)
                return deployment_result(found)
        except ClientError as error:
            return DeploymentResult(
                deployment_id=config.deployment_id,
                success=False,
                deployment_strategy=config.deployment_strategy,
                health_check_results={"healthy": False, "checks": {}},
                error=str(error),
            )

    def get_deployment_status(self, deployment_id: str) -> Answer:
        """What serves: success (Ready), deployed_model_path, phase, reason, message, service_endpoints, versions with weights."""
        try:
            with SyncLoRAClient(**self._connection) as client:
                found = client.get_deployment_status(deployment_id)
                return status_answer(found, path=_artifact_of(client, found))
        except ClientError as error:
            return Answer(success=False, deployment_id=deployment_id, deployed_model_path="", error=str(error))

    def rollback_deployment(self, deployment_id: str, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> Answer:
        """Back to what served before, and waits until it serves again."""
        try:
            with SyncLoRAClient(**self._connection) as client:
                namespace, name, _ = split_deployment_id(deployment_id)
                request = client.rollback_deployment(deployment_id)
                target = request.value.partition("/")[0]
                if request.ignored:
                    return Answer(success=False, deployment_id=deployment_id, error=request.result)

                def back(found: Deployment) -> bool:
                    there = found.stable is not None and found.stable.revision == target and found.phase == "Stable"
                    return there or found.stalled or found.phase == "Aborted"

                found = client.wait_for("deployments", name, back, namespace=namespace, timeout_seconds=timeout_seconds)
                success = found.stable is not None and found.stable.revision == target
                return Answer(
                    success=success, deployment_id=found.deployment_id, error="" if success else found.message
                )
        except ClientError as error:
            return Answer(success=False, deployment_id=deployment_id, error=str(error))


def settled(found: Deployment) -> bool:
    """The rollout of the stored spec has ended, one way or the other."""
    if not found.current:
        return False
    served = found.phase == "Stable" and found.stable is not None and found.stable.adapter == found.adapter
    return served or found.phase == "Aborted" or found.stalled


def _store(client: SyncLoRAClient, config: DeploymentConfiguration, *, namespace: str, name: str) -> None:
    adapter = str(config.custom_parameters.get("adapter") or "")
    if not adapter:
        raise Invalid(
            "custom_parameters.adapter: found nothing, expected the name of a LoRAAdapter; say which shall serve"
        )
    client.get_adapter(adapter, namespace=namespace)
    try:
        client.get_deployment(name, namespace=namespace)
    except NotFound:
        client.apply(_manifest(config, adapter=adapter, namespace=namespace, name=name))
        return
    force = bool(config.custom_parameters.get("take_over"))
    client.change_deployment(name, _said(config, adapter=adapter), namespace=namespace, force=force)


def _said(config: DeploymentConfiguration, *, adapter: str) -> dict[str, Any]:
    """The fields that the configuration speaks of."""
    given = config.custom_parameters
    passed: dict[str, Any] = {key: given[key] for key in PASSED if key in given}
    return {
        "adapterRef": {"name": adapter},
        "strategy": strategy_fields(config),
        "targetEnvironment": config.target_environment,
        "forceDeploy": config.force_deploy,
        **passed,
    }


def _manifest(config: DeploymentConfiguration, *, adapter: str, namespace: str, name: str) -> dict[str, Any]:
    spec = {"runtime": dict(RUNTIME), "traffic": dict(TRAFFIC)} | _said(config, adapter=adapter)
    return {
        "apiVersion": LORA_DEPLOYMENT.api_version,
        "kind": LORA_DEPLOYMENT.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def deployment_result(found: Deployment, *, path: str = "") -> DeploymentResult:
    """A rollout that has ended, as its resource tells it."""
    last = found.history[0] if found.history else None
    success = settled(found) and found.phase == "Stable"
    reason = str(found.abort.get("message") or found.message)
    return DeploymentResult(
        deployment_id=found.deployment_id or f"{found.namespace}/{found.name}",
        success=success,
        deployed_model_path=path,
        deployment_strategy=_STRATEGIES[found.strategy],
        start_time=last.started if last else "",
        completion_time=last.completed if last else "",
        deployment_duration_seconds=float(last.seconds) if last else 0.0,
        service_endpoints=list(found.endpoints),
        health_check_results=_health(found),
        performance_baseline=_baseline(found.status.get("analysis") or {}),
        error="" if success else reason,
    )


def status_answer(found: Deployment, *, path: str) -> Answer:
    """get_deployment_status's answer."""
    versions = {"stable": found.stable, "candidate": found.candidate, "previous": found.previous}
    return Answer(
        success=bool(found.ready),
        deployment_id=found.deployment_id or f"{found.namespace}/{found.name}",
        deployed_model_path=path,
        deployment_strategy=str(_STRATEGIES[found.strategy]),
        phase=found.phase,
        reason=found.reason,
        message=found.message,
        service_endpoints=list(found.endpoints),
        health_check_results=_health(found),
        versions={role: vars(version) for role, version in versions.items() if version is not None},
    )


def _health(found: Deployment) -> dict[str, Any]:
    """The pods were asked validated questions before they got traffic (model_loading); the scheduler found them a device."""
    serving = found.stable is not None and found.stable.ready_replicas > 0
    checks = {"model_loading": serving, "gpu_resources": found.reason not in {"InsufficientGPU", "InsufficientMemory"}}
    return {"healthy": bool(found.ready), "checks": checks}


def _baseline(analysis: Mapping[str, Any]) -> dict[str, float | None]:
    """Stable's figures of the last comparison; null where nothing was compared."""
    by_name = {str(one.get("builtin") or one.get("name")): one for one in analysis.get("metrics") or ()}

    def stable(metric: str, factor: float) -> float | None:
        value = (by_name.get(metric) or {}).get("stable")
        return float(value) * factor if isinstance(value, int | float) else None

    return {
        "avg_response_time_ms": stable("latencyP95", 1000.0),
        "throughput_qps": stable("throughput", 1.0),
        "error_rate_percent": stable("errorRate", 100.0),
    }


def _artifact_of(client: SyncLoRAClient, found: Deployment) -> str:
    """Where the served model lies; empty where its LoRAAdapter is gone."""
    if found.stable is None:
        return ""
    try:
        adapter = client.get_adapter(found.stable.adapter, namespace=found.namespace)
    except NotFound:
        return ""
    return adapter.artifact_uri if adapter.digest == found.stable.artifact_digest else ""

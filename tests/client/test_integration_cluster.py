"""Deploying, looking, going back and whole workflows, in the words of lora_integration_tools, against a fake cluster."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lora_client.names import ADAPTER, LORA_DEPLOYMENT
from lora_integration_tools import (
    DeploymentConfiguration,
    DeploymentStrategy,
    LoRAAdapterInfo,
    LoRAAdapterType,
    LoRADeploymentManager,
    LoRAIntegrationOrchestrator,
    create_default_deployment_config,
    create_lora_adapter_info,
    schema,
)
from lora_integration_tools.__main__ import main
from tests.client.objects import adapter, deployment
from tests.client.simulated_operator import SimulatedOperator
from tests.fakes.api_server import FakeApiServer, write_kubeconfig

BASE, LORA = "pvc://models/base", "pvc://models/adapters/v1"
ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


@pytest.fixture
def operator(api: FakeApiServer) -> SimulatedOperator:
    """Everything goes well unless the test says otherwise."""
    return SimulatedOperator(api).attach()


@pytest.fixture
def manager(kubeconfig: Path) -> LoRADeploymentManager:
    return LoRADeploymentManager(kubeconfig=str(kubeconfig))


@pytest.fixture
def orchestrator(kubeconfig: Path) -> LoRAIntegrationOrchestrator:
    return LoRAIntegrationOrchestrator(kubeconfig=str(kubeconfig))


def info(**more: Any) -> LoRAAdapterInfo:
    found = create_lora_adapter_info("financial_analysis_v2", LoRAAdapterType.FINANCIAL_ANALYSIS, BASE, LORA)
    return LoRAAdapterInfo.from_dict(found.to_dict() | more)


async def plainly(call: Any, *arguments: Any, **options: Any) -> Any:
    """A plain call from a test whose server runs in this very loop."""
    return await asyncio.to_thread(call, *arguments, **options)


def config(name: str = "fin", **custom: Any) -> DeploymentConfiguration:
    return DeploymentConfiguration(name, custom_parameters={"adapter": "v1", "timeout_seconds": 20} | custom)


@pytest.fixture
def ready(api: FakeApiServer, operator: SimulatedOperator) -> FakeApiServer:
    """Adapters v1 and v2 are ready."""
    for name in ("v1", "v2"):
        api.put(ADAPTER, adapter(name))
        operator._adapter(api.peek(ADAPTER, name))
    return api


async def test_a_model_is_deployed_and_the_result_fits_the_schema(
    ready: FakeApiServer, manager: LoRADeploymentManager
) -> None:
    result = await plainly(manager.deploy_model, config(replicas=2))
    assert result.success
    assert result.deployment_id.startswith("finance/fin/")
    assert result.service_endpoints == ["http://fin.finance.svc/v1/chat/completions"]
    assert result.health_check_results == {"healthy": True, "checks": {"model_loading": True, "gpu_resources": True}}
    jsonschema.validate(result.to_dict(), schema("deployment_result"))
    assert ready.peek(LORA_DEPLOYMENT, "fin")["spec"]["replicas"] == 2


async def test_an_existing_deployment_keeps_its_runtime_and_route(
    ready: FakeApiServer, manager: LoRADeploymentManager
) -> None:
    gateway = {"gateway": {"parentRefs": [{"name": "public"}], "hostnames": ["fin.example.com"]}}
    ready.put(LORA_DEPLOYMENT, deployment(ref="v1", traffic=gateway, runtime={"profile": "transformers"}))
    result = await plainly(manager.deploy_model, config(adapter="v2"))
    spec = ready.peek(LORA_DEPLOYMENT, "fin")["spec"]
    assert (result.success, spec["adapterRef"], spec["traffic"], spec["runtime"]) == (
        True,
        {"name": "v2"},
        gateway,
        {"profile": "transformers"},
    )


async def test_a_second_deployment_keeps_what_the_first_set_and_leaves_no_rest_of_its_strategy(
    ready: FakeApiServer, manager: LoRADeploymentManager
) -> None:
    split = {"traffic_split": {"variant_a": 0.5, "variant_b": 0.5}, "success_metrics": ["conversion_rate"]}
    testing = DeploymentConfiguration(
        "fin", DeploymentStrategy.A_B_TESTING, custom_parameters={"adapter": "v1", "timeout_seconds": 20, **split}
    )
    assert (await plainly(manager.deploy_model, testing)).success
    before = ready.peek(LORA_DEPLOYMENT, "fin")["spec"]
    assert "abTest" in before["strategy"]
    assert (await plainly(manager.deploy_model, config(adapter="v2"))).success
    after = ready.peek(LORA_DEPLOYMENT, "fin")["spec"]
    assert (after["runtime"], after["traffic"]) == (before["runtime"], before["traffic"])
    assert after["strategy"].keys() == {"type"}


async def test_a_field_of_another_manager_is_changed_only_when_that_is_said(
    ready: FakeApiServer, manager: LoRADeploymentManager
) -> None:
    ready.put(LORA_DEPLOYMENT, deployment(ref="v1"))
    ready.own(LORA_DEPLOYMENT, "fin", ("adapterRef", "name"), "argocd-controller")
    refused = await plainly(manager.deploy_model, config(adapter="v2"))
    assert (refused.success, "argocd-controller" in refused.error) == (False, True)
    assert ready.peek(LORA_DEPLOYMENT, "fin")["spec"]["adapterRef"] == {"name": "v1"}
    assert (await plainly(manager.deploy_model, config(adapter="v2", take_over=True))).success
    assert ready.peek(LORA_DEPLOYMENT, "fin")["spec"]["adapterRef"] == {"name": "v2"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"adapter": ""}, "custom_parameters.adapter", id="no adapter is named"),
        pytest.param(
            {"adapter": "v3"}, "LoRAAdapter v3 is not in namespace finance; there is", id="the adapter does not exist"
        ),
    ],
)
async def test_a_deployment_that_cannot_begin_says_why(
    ready: FakeApiServer, manager: LoRADeploymentManager, change: dict[str, Any], words: str
) -> None:
    result = await plainly(manager.deploy_model, config(**change))
    assert not result.success
    assert words in result.error
    assert [key for key in ready.objects if key[0] == "loradeployments"] == []


async def test_a_rollout_that_was_given_up_is_no_success_and_tells_the_reason(
    ready: FakeApiServer, operator: SimulatedOperator, manager: LoRADeploymentManager
) -> None:
    operator.deployments = "crash"
    result = await plainly(manager.deploy_model, config())
    assert (result.success, result.error) == (False, "ValueError: no such layer")


async def test_the_status_says_where_the_served_model_lies(
    ready: FakeApiServer, manager: LoRADeploymentManager
) -> None:
    deployed = await plainly(manager.deploy_model, config("finance/fin"))
    status = await plainly(manager.get_deployment_status, deployed.deployment_id)
    assert status
    assert status["deployed_model_path"] == "pvc://models/artifacts/v1"
    assert status["deployment_id"] == deployed.deployment_id


async def test_the_status_of_what_is_not_there_is_false_with_a_sentence(
    ready: FakeApiServer, manager: LoRADeploymentManager
) -> None:
    status = await plainly(manager.get_deployment_status, "nobody")
    assert not status
    assert "nobody is not in namespace finance" in status["error"]


async def test_going_back_reaches_what_served_before(ready: FakeApiServer, manager: LoRADeploymentManager) -> None:
    first = await plainly(manager.deploy_model, config())
    second = await plainly(manager.deploy_model, config(adapter="v2"))
    assert second.success
    answer = await plainly(manager.rollback_deployment, second.deployment_id)
    assert answer
    assert answer["deployment_id"] == first.deployment_id


async def test_with_nothing_to_go_back_to_the_answer_is_false(
    ready: FakeApiServer, manager: LoRADeploymentManager
) -> None:
    deployed = await plainly(manager.deploy_model, config())
    answer = await plainly(manager.rollback_deployment, deployed.deployment_id)
    assert not answer
    assert "no older version" in answer["error"]


async def test_a_whole_workflow(
    operator: SimulatedOperator, api: FakeApiServer, orchestrator: LoRAIntegrationOrchestrator
) -> None:
    answer = await orchestrator.execute_full_integration_workflow(
        info(version="2.1.0", tags=["rtx4070"]),
        deployment_config=create_default_deployment_config("fin-assistant", "production"),
    )
    assert (answer["success"], answer["status"], answer["errors"]) == (True, "completed", [])
    assert answer["final_deployment"]["success"]
    jsonschema.validate(answer["final_deployment"], schema("deployment_result"))
    (stored,) = [obj for key, obj in api.objects.items() if key[0] == "loraadapters"]
    assert stored["metadata"]["name"].startswith("financial-analysis-v2-")
    assert stored["spec"]["tags"] == ["rtx4070"]
    assert api.peek(LORA_DEPLOYMENT, "fin-assistant")["spec"]["targetEnvironment"] == "production"


async def test_the_same_workflow_again_is_the_same_build(
    operator: SimulatedOperator, api: FakeApiServer, orchestrator: LoRAIntegrationOrchestrator
) -> None:
    for _ in range(2):
        assert await orchestrator.execute_full_integration_workflow(info())
    assert len([key for key in api.objects if key[0] == "loraadapters"]) == 1


async def test_a_refused_merge_is_an_error_of_the_workflow_and_nothing_is_deployed(
    api: FakeApiServer, orchestrator: LoRAIntegrationOrchestrator
) -> None:
    SimulatedOperator(api, adapters={"v9": "refused"}).attach()
    config = DeploymentConfiguration("fin", custom_parameters={"adapter": "v9"})
    answer = await orchestrator.execute_full_integration_workflow(info(), deployment_config=config)
    assert (answer["success"], answer["status"]) == (False, "failed")
    assert answer["errors"] == ["WrongBase: names 'x'"]


async def test_no_cluster_is_an_error_of_the_workflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    answer = await LoRAIntegrationOrchestrator().execute_full_integration_workflow(info())
    assert not answer
    assert "set KUBECONFIG" in answer["errors"][0]


async def test_workflows_are_listed_told_and_cancelled(
    api: FakeApiServer, orchestrator: LoRAIntegrationOrchestrator
) -> None:
    SimulatedOperator(api, adapters={"v1": "stuck"}).attach()
    config = DeploymentConfiguration("fin", custom_parameters={"adapter": "v1"})
    running = asyncio.ensure_future(
        orchestrator.execute_full_integration_workflow(info(), deployment_config=config, workflow_id=ID)
    )
    while len(api.objects) < 2:
        await asyncio.sleep(0.01)
    assert [one["workflow_id"] for one in await plainly(orchestrator.list_workflows)] == [ID]
    assert (await plainly(orchestrator.get_workflow_status, ID))["status"] == "pending"
    assert await plainly(orchestrator.cancel_workflow, ID)
    assert (await running)["status"] == "cancelled"
    again = await plainly(orchestrator.get_workflow_status, ID)
    assert again["status"] == "cancelled"


async def test_an_unknown_workflow_is_told(
    operator: SimulatedOperator, orchestrator: LoRAIntegrationOrchestrator
) -> None:
    answer = await plainly(orchestrator.get_workflow_status, "nothing")
    assert not answer
    assert "workflow nothing is not in namespace finance" in answer["message"]


async def command(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m lora_integration_tools ARGUMENTS` as a user runs it."""
    line = [sys.executable, "-m", "lora_integration_tools", *arguments]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
    return await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, check=False, env=environment)


Inside = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def inside(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """The same command line in this process, which saves the imports: its exit code and its result."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    async def run(*arguments: str) -> tuple[int, Any]:
        code = await asyncio.to_thread(main, arguments)
        return code, json.loads(capsys.readouterr().out)

    return run


async def test_the_command_line_runs_a_workflow_and_tells_its_status(
    operator: SimulatedOperator, kubeconfig: Path, inside: Inside
) -> None:
    paths = ["--adapter-path", LORA, "--base-model-path", BASE, "--adapter-name", "fin", "--validation-mode", "basic"]
    done = await command(kubeconfig, "--action", "workflow", *paths, "--workflow-id", ID, "--target-env", "production")
    result = json.loads(done.stdout)
    assert (done.returncode, result["success"], result["workflow_id"]) == (0, True, ID), done.stderr
    assert "completed" in done.stderr
    code, result = await inside("--action", "status", "--workflow-id", ID)
    assert (code, result["status"]) == (0, "completed")
    _, result = await inside("--action", "status")
    assert [one["workflow_id"] for one in result["workflows"]] == [ID]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--action", "workflow"], "--adapter-path, --base-model-path", id="a missing flag is named"),
        pytest.param(["--action", "status", "--workflow-id", "x"], "workflow x is not in", id="an unknown workflow"),
        pytest.param(
            ["--action", "workflow", "--adapter-path", "ftp://a/b", "--base-model-path", BASE],
            "found 'ftp://a/b'",
            id="an unknown scheme",
        ),
    ],
)
async def test_bad_input_is_one_result_and_exit_2(
    operator: SimulatedOperator, inside: Inside, arguments: list[str], words: str
) -> None:
    code, result = await inside(*arguments)
    assert (code, result["success"]) == (2, False)
    assert words in json.dumps(result)


WORKFLOW = ("--action", "workflow", "--adapter-path", LORA, "--base-model-path", BASE, "--adapter-name", "fin")


@pytest.mark.parametrize("action", [WORKFLOW, ("--action", "status", "--workflow-id", ID)], ids=["workflow", "status"])
async def test_a_cluster_that_does_not_answer_is_worth_another_try(
    inside: Inside, kubeconfig: Path, action: tuple[str, ...]
) -> None:
    write_kubeconfig(kubeconfig, server="http://127.0.0.1:1")
    code, result = await inside(*action)
    assert (code, result["success"]) == (1, False)
    assert "does not answer" in json.dumps(result)


@pytest.mark.parametrize(
    ("becomes", "exit_code"),
    [
        pytest.param({"every_adapter": "refused"}, 2, id="the merge is refused"),
        pytest.param({"deployments": "crash"}, 3, id="the rollout is given up"),
    ],
)
async def test_a_workflow_that_failed_ends_with_the_code_of_its_cause(
    api: FakeApiServer, inside: Inside, becomes: dict[str, str], exit_code: int
) -> None:
    SimulatedOperator(api, **becomes).attach()
    code, result = await inside(*WORKFLOW)
    assert (code, result["exit_code"], result["success"]) == (exit_code, exit_code, False)

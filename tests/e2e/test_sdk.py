"""The SDK on a real cluster: local directories travel, workflows run and are cancelled, requests are answered, watches hold."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import Cluster
from lora_client import (
    Adapter,
    AdapterSource,
    Conflict,
    LoRAClient,
    NotFound,
    Refused,
    Unavailable,
    Verb,
    WorkflowRequest,
    WorkflowState,
)
from lora_client.names import LABEL_CANCELLED, POD
from lora_client.report import read_report
from lora_integration_tools import LoRAIntegrationOrchestrator, create_lora_adapter_info
from lora_job.digest import directory_digest
from tests.e2e.test_bad_input import deployment, write_adapter, write_model

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
LAYER = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
async def client(cluster: Cluster, namespace: str, installed: None) -> AsyncIterator[LoRAClient]:
    async with LoRAClient.connect(kubeconfig=str(cluster.kubeconfig), namespace=namespace) as client:
        yield client


@pytest.fixture
def claim(cluster: Cluster, namespace: str) -> Path:
    """The directory of an empty, writable claim `models`."""
    return cluster.create_claim(namespace=namespace, name="models")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A base and an adapter on this machine."""
    write_model(tmp_path / "base", {LAYER: (8, 8)}, {"model_type": "llama", "vocab_size": 8})
    write_adapter(tmp_path / "adapter", out=8)
    return tmp_path


def request(name: str, *, base: Any, adapter: Any, **more: Any) -> WorkflowRequest:
    options: Json = {"deploy": False, "validation": {"mode": "None"}} | more
    return WorkflowRequest(name=name, base=base, adapters=[AdapterSource(source=adapter)], **options)


async def test_local_directories_are_copied_merged_and_published(
    client: LoRAClient, claim: Path, local: Path, job_image: str
) -> None:
    told, states = [], []
    found = await client.run_workflow(
        request("one", base=local / "base", adapter=local / "adapter"),
        image=job_image,
        timeout_seconds=300,
        copied=told.append,
        seen=lambda workflow: states.append(workflow.state),
    )
    assert found.succeeded, found.message
    assert {progress.stage for progress in told if progress.share == 1} == {"copy base", "copy adapter"}
    assert states[-1] is WorkflowState.COMPLETED
    assert found.adapter is not None
    published = claim / found.adapter.artifact_uri.removeprefix("pvc://models/")
    assert directory_digest(published) == found.adapter.digest
    copied = claim / found.adapter.spec["base"]["source"]["pvc"]["path"]
    assert directory_digest(copied) == found.adapter.spec["base"]["digest"] == directory_digest(local / "base")
    stages = {line.progress.stage for line in [one async for one in client.adapter_logs("one")] if line.progress}
    assert "merge" in stages
    again = await client.run_workflow(
        request("two", base=local / "base", adapter=local / "adapter"),
        wait=False,  # the image is now that of a Job
    )
    assert again.adapter is not None
    assert again.adapter.spec["base"] == found.adapter.spec["base"]
    pods = [
        pod for pod in await client.api.list(POD, namespace=client.namespace) if "lora-files" in pod["metadata"]["name"]
    ]
    assert [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]] == []


async def test_a_source_that_is_not_fetched_yet_ends_the_workflow_with_that_reason(
    client: LoRAClient, claim: Path
) -> None:
    found = await client.run_workflow(
        request("remote", base="hf://org/model", adapter="pvc://models/adapters/x"), timeout_seconds=60
    )
    assert (found.state, found.reason) == (WorkflowState.FAILED, "NotSupportedYet")
    assert "spec.base.source" in found.message


async def test_a_workflow_that_waits_is_cancelled(client: LoRAClient) -> None:
    waiting = request(
        "waiting",
        base="pvc://absent/base",
        adapter="pvc://absent/adapter",
        deploy=True,
        runtime={"profile": "transformers"},
    )
    started = await client.run_workflow(waiting, wait=False)
    await client.wait_for("adapters", "waiting", lambda found: found.reason == "ClaimNotFound", timeout_seconds=60)
    assert (await client.list_workflows())[0].id == started.id
    cancelled = await client.cancel_workflow(started.id)
    assert cancelled.state is WorkflowState.CANCELLED
    await client.wait_for("adapters", "waiting", lambda found: found.phase == "Suspended", timeout_seconds=60)
    serving = await client.get_deployment("waiting")
    assert (serving.labels[LABEL_CANCELLED], serving.stable) == ("true", None)


async def test_a_request_is_answered_by_the_operator(client: LoRAClient, cluster: Cluster, namespace: str) -> None:
    cluster.apply(deployment(namespace, ref="nobody"))
    await client.wait_for("deployments", "d", lambda found: found.reason == "AdapterNotFound", timeout_seconds=60)
    with pytest.raises(Refused, match="nothing to abort"):
        await client.request("d", Verb.ABORT)
    answer = await client.request("d", Verb.RETRY, revision="0123abcd", answer_seconds=60)
    assert answer.ignored
    assert "0123abcd" in answer.result


async def test_real_answers_become_sentences(client: LoRAClient, cluster: Cluster, namespace: str) -> None:
    cluster.apply(deployment(namespace, ref="one"))
    with pytest.raises(NotFound, match=f"namespace {namespace}; there is d"):
        await client.get_deployment("e")
    with pytest.raises(Conflict, match="kubectl"):
        await client.apply(deployment(namespace, ref="two"))
    broken = deployment(namespace)
    broken["spec"]["traffic"] = {}
    broken["metadata"]["name"] = "broken"
    with pytest.raises(Refused, match="expected exactly one of gateway, ingress, service"):
        await client.apply(broken)
    with pytest.raises(NotFound, match="create the namespace"):
        await client.apply(deployment(f"{namespace}-absent"))


async def test_a_watch_tells_of_changes_and_deletions(client: LoRAClient, namespace: str) -> None:
    changes = client.watch("deployments", name="watched")
    first = asyncio.ensure_future(anext(changes))
    manifest = deployment(namespace, ref="nobody")
    manifest["metadata"]["name"] = "watched"
    await client.apply(manifest)
    async with asyncio.timeout(60):
        kind, found = await first
        assert (kind, found.name) == ("Added", "watched")
        await client.delete_deployment("watched")
        while kind != "Deleted":
            kind, found = await anext(changes)
    await changes.aclose()  # type: ignore[attr-defined]


async def helper_pods(client: LoRAClient) -> list[str]:
    """Those that are not on their way out."""
    found = await client.api.list(POD, namespace=client.namespace, labels="app.kubernetes.io/name=lora-files")
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


async def test_a_report_is_read_under_pod_security_restricted_and_no_pod_is_left(
    client: LoRAClient, claim: Path, job_image: str
) -> None:
    folder = claim / "artifacts" / "one" / "validation"
    folder.mkdir(parents=True)
    (folder / "v-1.json").write_text('{"overall_score": 0.5}')

    def of(name: str) -> Adapter:
        uri = f"pvc://models/artifacts/one/validation/{name}.json"
        return Adapter(
            {
                "metadata": {"name": "one", "namespace": client.namespace},
                "status": {"validation": {"reportUri": uri}},
            }
        )

    said: list[str] = []
    found = await read_report(client.api, of("v-1"), image=job_image, say=said.append)
    assert (json.loads(found), said[-1].endswith("reads the report")) == ({"overall_score": 0.5}, True)
    with pytest.raises(Refused, match=r"v-2\.json cannot be read: No such file or directory"):
        await read_report(client.api, of("v-2"), image=job_image)
    with pytest.raises(Unavailable, match=r"cannot start: .*localhost/absent:1"):
        await read_report(client.api, of("v-1"), image="localhost/absent:1")
    assert await helper_pods(client) == []


async def test_a_deployment_is_changed_without_losing_what_was_set_before(
    client: LoRAClient, cluster: Cluster, namespace: str
) -> None:
    manifest = deployment(namespace, ref="nobody")
    manifest["metadata"]["name"] = "changed"
    manifest["spec"]["strategy"] = {"type": "Canary", "canary": {"steps": [{"setWeight": 5}]}}
    manifest["spec"]["replicas"] = 1  # the API server notes who scales only where somebody had the field before
    before = await client.apply(manifest)
    after = await client.change_deployment(
        "changed", {"adapterRef": {"name": "other"}, "strategy": {"type": "Replace"}}
    )
    assert (after.adapter, "canary" in after.spec["strategy"]) == ("other", False)
    assert {key: after.spec[key] for key in ("runtime", "traffic")} == {
        key: before.spec[key] for key in ("runtime", "traffic")
    }
    cluster.kubectl("scale", "loradeployment/changed", "-n", namespace, "--replicas=2")
    again = await client.change_deployment("changed", {"adapterRef": {"name": "third"}})
    assert (again.adapter, again.spec["replicas"]) == ("third", 2)
    with pytest.raises(Conflict, match=r"\.spec\.replicas"):  # who scales keeps the field, until it is taken over
        await client.change_deployment("changed", {"replicas": 3})
    assert (await client.change_deployment("changed", {"replicas": 3}, force=True)).spec["replicas"] == 3


async def test_the_integration_module_runs_the_same_workflow_and_tells_what_was_refused(
    cluster: Cluster, client: LoRAClient, claim: Path, local: Path
) -> None:
    write_adapter(local / "other", out=8, base="another-model")
    for name in ("base", "other"):
        target = claim / name
        target.mkdir()
        for file in (local / name).iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    info = create_lora_adapter_info("Fin_Other", "financial_analysis", "pvc://models/base", "pvc://models/other")
    orchestrator = LoRAIntegrationOrchestrator(kubeconfig=str(cluster.kubeconfig), namespace=client.namespace)
    answer = await orchestrator.execute_full_integration_workflow(info, validation_mode="basic", timeout_seconds=300)
    assert (answer["success"], answer["status"]) == (False, "failed")
    assert "another-model" in answer["errors"][0]
    assert json.dumps(answer)
    assert (await client.get_workflow_status(answer["workflow_id"])).reason == "WrongBase"

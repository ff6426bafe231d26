"""A workflow is its two objects: what they say, what is created, what cancelling does."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from lora_client.adapter import Adapter
from lora_client.client import LoRAClient
from lora_client.deployment import Deployment
from lora_client.errors import Invalid, NotFound, Refused, TimedOut
from lora_client.names import ADAPTER, ANNOTATION_WORKFLOW_DEPLOYMENT, LABEL_CANCELLED, LABEL_WORKFLOW, LORA_DEPLOYMENT
from lora_client.workflow import AdapterSource, Workflow, WorkflowRequest, WorkflowState, state_of
from tests.client.objects import adapter, conditions, deployment, finished, version
from tests.fakes.api_server import FakeApiServer

Json = dict[str, Any]
ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


def request(**more: Any) -> WorkflowRequest:
    sources: Json = {"base": "pvc://models/base", "adapters": [AdapterSource(source="pvc://models/adapters/v1")]}
    return WorkflowRequest(**({"name": "fin"} | sources | more))


def an_adapter(phase: str, *, reason: str = "", stalled: bool = False, current: bool = True, **status: Any) -> Json:
    obj = adapter(labels={LABEL_WORKFLOW: ID})
    obj["metadata"] |= {"namespace": "finance", "generation": 2, "annotations": {ANNOTATION_WORKFLOW_DEPLOYMENT: "fin"}}
    ready = "True" if phase == "Ready" else "False"
    obj["status"] = {
        "observedGeneration": 2 if current else 1,
        "phase": phase,
        "conditions": conditions(ready=ready, reason=reason or phase, stalled=stalled),
        **status,
    }
    return obj


def a_deployment(
    phase: str,
    *,
    workflow: str = ID,
    stalled: bool = False,
    current: bool = True,
    spec: Json | None = None,
    **status: Any,
) -> Json:
    obj = deployment(labels={LABEL_WORKFLOW: workflow}, **(spec or {}))
    obj["metadata"] |= {"namespace": "finance", "generation": 2}
    obj["status"] = {
        "observedGeneration": 2 if current else 1,
        "phase": phase,
        "conditions": conditions(ready="False", reason=f"{phase}Reason", stalled=stalled),
        **status,
    }
    return obj


def judged(a: Json | None, d: Json | None) -> Workflow:
    return state_of(ID, adapter=Adapter(a) if a else None, deployment=Deployment(d) if d else None)


READY = an_adapter("Ready")
SOFT = [{"name": "score", "kind": "soft", "status": "FAIL"}]
HARD = [*SOFT, {"name": "fidelity", "kind": "hard", "status": "FAIL"}]
FORCED: Json = {"forceDeploy": True}


@pytest.mark.parametrize(
    ("a", "d", "state"),
    [
        pytest.param(None, None, "pending", id="nothing is there yet"),
        pytest.param(an_adapter("Pending"), a_deployment("Pending"), "pending", id="the adapter waits"),
        pytest.param(
            an_adapter("Ready", current=False),
            a_deployment("Pending"),
            "pending",
            id="a status about an older spec says nothing",
        ),
        pytest.param(an_adapter("Resolving"), a_deployment("Pending"), "merging", id="sources are fetched"),
        pytest.param(an_adapter("Merging"), a_deployment("Pending"), "merging", id="it merges"),
        pytest.param(an_adapter("Validating"), a_deployment("Pending"), "validating", id="it validates"),
        pytest.param(an_adapter("Failed", stalled=True), a_deployment("Pending"), "failed", id="the merge was refused"),
        pytest.param(
            an_adapter("Pending", stalled=True),
            a_deployment("Pending"),
            "failed",
            id="only a person can help the adapter",
        ),
        pytest.param(
            an_adapter("Rejected", validation={"gates": SOFT}), a_deployment("Pending"), "failed", id="a gate failed"
        ),
        pytest.param(
            an_adapter("Rejected", validation={"gates": SOFT}),
            a_deployment("Preparing", spec=FORCED),
            "deploying",
            id="a soft gate is overridden",
        ),
        pytest.param(
            an_adapter("Rejected", validation={"gates": HARD}),
            a_deployment("Pending", spec=FORCED),
            "failed",
            id="a hard gate cannot be overridden",
        ),
        pytest.param(READY, None, "failed", id="the deployment was deleted"),
        pytest.param(
            READY, a_deployment("Pending", current=False), "deploying", id="the operator has not seen the deployment"
        ),
        pytest.param(READY, a_deployment("Preparing"), "deploying", id="pods start"),
        pytest.param(READY, a_deployment("Paused"), "deploying", id="a pause is not the end"),
        pytest.param(READY, a_deployment("Stable", stable=version("b", adapter="fin")), "completed", id="it serves"),
        pytest.param(
            READY,
            a_deployment("Stable", stable=version("b", adapter="old")),
            "deploying",
            id="still the old one serves",
        ),
        pytest.param(
            READY,
            a_deployment("Stable", stable=version("b", adapter="fin"), heldRevision="c"),
            "failed",
            id="somebody went back",
        ),
        pytest.param(
            READY, a_deployment("Aborted", abort={"reason": "PodFailed"}), "failed", id="the rollout was given up"
        ),
        pytest.param(
            READY, a_deployment("Pending", stalled=True), "failed", id="only a person can help the deployment"
        ),
        pytest.param(
            READY,
            a_deployment("Preparing", workflow="later", history=[finished("a", adapter="fin")]),
            "completed",
            id="it served until a later workflow",
        ),
        pytest.param(
            READY,
            a_deployment("Preparing", workflow="later", stable=version("a", adapter="fin")),
            "completed",
            id="a later workflow is on its way",
        ),
        pytest.param(
            READY,
            a_deployment("Stable", workflow="later", stable=version("b", adapter="new")),
            "failed",
            id="overtaken before it served",
        ),
        pytest.param(
            None,
            a_deployment("Stable", stable=version("b", adapter="fin")),
            "completed",
            id="the adapter was deleted after it served",
        ),
        pytest.param(None, a_deployment("Pending"), "failed", id="the adapter was deleted before it served"),
    ],
)
def test_a_workflow_is(a: Json | None, d: Json | None, state: str) -> None:
    assert str(judged(a, d).state) == state


def test_the_reason_of_a_rollout_that_was_given_up_is_the_aborts() -> None:
    found = judged(
        READY, a_deployment("Aborted", abort={"reason": "WrongModelAnswers", "message": "found A, expected B"})
    )
    assert (found.reason, found.message) == ("WrongModelAnswers", "found A, expected B")


def test_a_workflow_without_a_deployment_ends_with_the_artifact() -> None:
    alone = an_adapter("Ready")
    del alone["metadata"]["annotations"]
    assert judged(alone, None).state is WorkflowState.COMPLETED


async def test_both_objects_are_created_and_joined(client: LoRAClient, api: FakeApiServer) -> None:
    found = await client.run_workflow(request(validation={"mode": "Basic"}, replicas=2), wait=False)
    stored, serving = api.peek(ADAPTER, "fin"), api.peek(LORA_DEPLOYMENT, "fin")
    assert UUID(found.id).version == 4
    assert stored["metadata"]["labels"][LABEL_WORKFLOW] == serving["metadata"]["labels"][LABEL_WORKFLOW] == found.id
    assert stored["spec"] == {
        "base": {"source": {"pvc": {"claimName": "models", "path": "base"}}},
        "adapters": [
            {"name": "main", "source": {"pvc": {"claimName": "models", "path": "adapters/v1"}}, "weight": 1.0}
        ],
        "validation": {"mode": "Basic"},
        "artifact": {"store": {"pvc": {"claimName": "models", "path": "artifacts"}}},
    }
    assert serving["spec"]["adapterRef"] == {"name": "fin"}
    assert serving["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("s3://bucket/a/b", {"s3": {"bucket": "bucket", "prefix": "a/b"}}, id="S3"),
        pytest.param("hf://org/name", {"huggingFace": {"repo": "org/name"}}, id="Hugging Face"),
        pytest.param(
            "hf://org/name@v1", {"huggingFace": {"repo": "org/name", "revision": "v1"}}, id="Hugging Face at a revision"
        ),
        pytest.param("oci://r.io/x:1", {"oci": {"reference": "r.io/x:1"}}, id="OCI"),
        pytest.param(
            {"pvc": {"claimName": "c", "path": "p"}},
            {"pvc": {"claimName": "c", "path": "p"}},
            id="a source as the resource says it",
        ),
    ],
)
async def test_a_source_is_written_as(client: LoRAClient, api: FakeApiServer, source: Any, expected: Json) -> None:
    await client.run_workflow(request(base=source), wait=False)
    assert api.peek(ADAPTER, "fin")["spec"]["base"]["source"] == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"name": "Fin_1"}, "name: found 'Fin_1'", id="a name that Kubernetes does not take"),
        pytest.param({"deployment": "x" * 46}, "at most 45", id="a name that is too long"),
        pytest.param({"adapters": []}, "adapters: found none", id="no adapter"),
        pytest.param({"base": "ftp://x/y"}, "base: found 'ftp://x/y'", id="an unknown scheme"),
        pytest.param({"base": "/nowhere/at/all"}, "nothing of that name here", id="a directory that is not there"),
        pytest.param({"base": "pvc://models"}, "expected pvc://CLAIM/PATH", id="a claim without a path"),
        pytest.param({"base": "pvc://models/../x"}, "expected pvc://CLAIM/PATH", id="a path that leaves the claim"),
        pytest.param({"store": "/tmp/x"}, "store: found '/tmp/x'", id="a store that is no claim"),
    ],
)
async def test_a_bad_request_names_the_part_and_creates_nothing(
    client: LoRAClient, api: FakeApiServer, change: Json, words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await client.run_workflow(request(**change))
    assert words in str(refused.value)
    assert api.requests == []


async def test_a_deployment_that_the_server_refuses_leaves_no_adapter_behind(
    client: LoRAClient, api: FakeApiServer
) -> None:
    api.fail(422, match="dryRun=All", message="traffic: found none, expected exactly one of gateway, ingress, service")
    with pytest.raises(Refused, match="traffic"):
        await client.run_workflow(request(traffic={}))
    assert api.objects == {}


async def test_the_same_workflow_again_changes_nothing(client: LoRAClient, api: FakeApiServer) -> None:
    for _ in range(2):
        await client.run_workflow(request(), workflow_id=ID, wait=False)
    assert [obj["metadata"]["generation"] for obj in api.objects.values()] == [1, 1]


async def shown(seen: list[str], count: int) -> None:
    async with asyncio.timeout(10):
        while len(seen) < count:
            await asyncio.sleep(0.01)


async def test_without_the_right_to_watch_a_workflow_is_still_followed(
    client: LoRAClient, api: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_client.workflow_client.LOOK_ANYWAY_SECONDS", 0.05)
    api.fail(403, times=99, match="watch=true")
    running = asyncio.ensure_future(client.run_workflow(request(deploy=False), timeout_seconds=20))
    while not api.objects:
        await asyncio.sleep(0.01)
    api.set_status(ADAPTER, "fin", an_adapter("Ready")["status"] | {"observedGeneration": 1})
    assert (await running).succeeded


async def test_a_workflow_is_followed_to_its_end_and_every_state_is_shown(
    client: LoRAClient, api: FakeApiServer
) -> None:
    seen: list[str] = []
    running = asyncio.ensure_future(
        client.run_workflow(
            request(), workflow_id=ID, timeout_seconds=20, seen=lambda found: seen.append(str(found.state))
        )
    )
    await shown(seen, 1)
    for number, phase in enumerate(("Merging", "Validating", "Ready"), start=2):
        api.set_status(ADAPTER, "fin", an_adapter(phase)["status"] | {"observedGeneration": 1})
        await shown(seen, number)
    api.set_status(
        LORA_DEPLOYMENT,
        "fin",
        {"phase": "Stable", "stable": version("b"), "conditions": conditions(ready="True", reason="Stable")},
    )
    found = await running
    assert found.succeeded
    assert seen == ["pending", "merging", "validating", "deploying", "completed"]


async def test_waiting_in_vain_says_where_it_stands_and_that_it_goes_on(client: LoRAClient) -> None:
    with pytest.raises(TimedOut, match=r"pending .*it goes on"):
        await client.run_workflow(request(), timeout_seconds=0.1)


async def test_an_unknown_workflow_is_answered_with_those_there_are(client: LoRAClient) -> None:
    await client.run_workflow(request(), workflow_id=ID, wait=False)
    with pytest.raises(NotFound, match=ID):
        await client.get_workflow_status("6f9619ff")


async def test_workflows_are_listed_even_where_a_later_one_took_the_deployment_over(
    client: LoRAClient, api: FakeApiServer
) -> None:
    await client.run_workflow(request(), workflow_id=ID, wait=False)
    await client.run_workflow(request(name="fin-2", deployment="fin"), workflow_id="later", wait=False)
    api.put(ADAPTER, adapter("by-hand"))
    found = {one.id: one for one in await client.list_workflows()}
    assert set(found) == {ID, "later"}
    assert found[ID].deployment is not None
    assert found[ID].deployment.workflow_id == "later"


async def test_cancelling_marks_both_suspends_the_adapter_and_aborts_the_candidate(
    client: LoRAClient, api: FakeApiServer
) -> None:
    await client.run_workflow(request(), workflow_id=ID, wait=False)
    api.set_status(ADAPTER, "fin", an_adapter("Ready")["status"] | {"observedGeneration": 1})
    api.set_status(
        LORA_DEPLOYMENT,
        "fin",
        {"phase": "Preparing", "candidate": version("abc"), "stable": version("old", adapter="v0")},
    )

    def give_up(obj: Json) -> None:
        if "loraops.dev/abort" in obj["metadata"].get("annotations", {}):
            api.react = lambda _: None
            api.set_status(LORA_DEPLOYMENT, "fin", {"phase": "Aborted", "stable": version("old", adapter="v0")})

    api.react = give_up
    found = await client.cancel_workflow(ID)
    stored, serving = api.peek(ADAPTER, "fin"), api.peek(LORA_DEPLOYMENT, "fin")
    assert found.state is WorkflowState.CANCELLED
    assert stored["spec"]["suspend"] is True
    assert [obj["metadata"]["labels"][LABEL_CANCELLED] for obj in (stored, serving)] == ["true", "true"]
    assert serving["metadata"]["annotations"]["loraops.dev/abort"].startswith("abc/")


async def test_cancelling_leaves_the_candidate_of_a_later_workflow_alone(
    client: LoRAClient, api: FakeApiServer
) -> None:
    await client.run_workflow(request(), workflow_id=ID, wait=False)
    await client.run_workflow(request(name="fin-2", deployment="fin"), workflow_id="later", wait=False)
    api.set_status(LORA_DEPLOYMENT, "fin", {"phase": "Preparing", "candidate": version("abc", adapter="fin-2")})
    assert (await client.cancel_workflow(ID)).state is WorkflowState.CANCELLED
    assert "annotations" not in api.peek(LORA_DEPLOYMENT, "fin")["metadata"]
    assert (await client.get_workflow_status("later")).state is WorkflowState.PENDING


async def test_a_finished_workflow_cannot_be_cancelled(client: LoRAClient, api: FakeApiServer) -> None:
    await client.run_workflow(request(), workflow_id=ID, wait=False)
    api.set_status(ADAPTER, "fin", an_adapter("Failed", stalled=True)["status"] | {"observedGeneration": 1})
    with pytest.raises(Refused, match="failed already"):
        await client.cancel_workflow(ID)


async def test_cancelling_twice_is_the_same_as_once(client: LoRAClient, api: FakeApiServer) -> None:
    await client.run_workflow(request(), workflow_id=ID, wait=False)
    api.set_status(LORA_DEPLOYMENT, "fin", {"phase": "Pending"})
    await client.cancel_workflow(ID)
    writes = sum(not line.startswith("GET") for line in api.requests)
    await client.cancel_workflow(ID)
    assert sum(not line.startswith("GET") for line in api.requests) == writes

"""Pods that the client starts: of which image, where, and that none is left."""

import asyncio
from typing import Any

import pytest

from lora_client.claim_pod import claim_pod
from lora_client.client import LoRAClient
from lora_client.errors import ClientError, Invalid, Unavailable
from lora_client.job_image import JobImage, find_job_image
from lora_client.names import JOB, POD
from tests.fakes.api_server import FakeApiServer

Json = dict[str, Any]
IMAGE = JobImage("job:1")


def put_job(api: FakeApiServer, name: str, *, image: str, adapter: str = "fin", day: int = 1, **spec: Any) -> None:
    labels = {"app.kubernetes.io/managed-by": "lora-operator", "loraops.dev/adapter": adapter}
    meta = {"name": name, "labels": labels, "creationTimestamp": f"2026-01-{day:02}T00:00:00Z"}
    api.put(JOB, {"metadata": meta, "spec": {"template": {"spec": {"containers": [{"image": image}], **spec}}}})


def put_pod(api: FakeApiServer, job: str, *, ran: str) -> None:
    status = {"containerStatuses": [{"name": "merge", "imageID": ran}]}
    api.put(POD, {"metadata": {"name": f"{job}-x", "labels": {"batch.kubernetes.io/job-name": job}}, "status": status})


async def find(client: LoRAClient, **asked: Any) -> JobImage:
    return await find_job_image(client.api, namespace="finance", **asked)


async def test_the_image_is_that_of_the_adapters_newest_job(client: LoRAClient, api: FakeApiServer) -> None:
    put_job(api, "a", image="registry/lora-job:7", day=1)
    put_job(api, "b", image="registry/lora-job:8", day=2)
    put_job(api, "c", image="registry/lora-job:9", day=3, adapter="other")
    assert (await find(client, adapter="fin")).name == "registry/lora-job:8"
    assert (await find(client)).name == "registry/lora-job:9"


@pytest.mark.parametrize(
    ("ran", "taken"),
    [
        pytest.param(f"registry/lora-job@sha256:{'a' * 64}", True, id="the digest that ran"),
        pytest.param(f"docker-pullable://registry/lora-job@sha256:{'a' * 64}", True, id="the same in an older form"),
        pytest.param(f"sha256:{'a' * 64}", False, id="not a digest without a name: nobody can pull it"),
        pytest.param("", False, id="not what never ran"),
    ],
)
async def test_a_tag_is_pinned_by(client: LoRAClient, api: FakeApiServer, ran: str, taken: bool) -> None:
    put_job(api, "a", image="registry/lora-job:7")
    put_pod(api, "a", ran=ran)
    expected = f"registry/lora-job@sha256:{'a' * 64}" if taken else "registry/lora-job:7"
    assert (await find(client)).name == expected


async def test_the_pod_goes_where_the_jobs_may_and_pulls_with_their_secret(
    client: LoRAClient, api: FakeApiServer
) -> None:
    placement = {
        "imagePullSecrets": [{"name": "reg"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu"}],
    }
    put_job(api, "a", image="i", restartPolicy="Never", **placement)
    started(api)
    found = await find(client, given="other:1")
    assert found == JobImage("other:1", placement)
    async with claim_pod(client.api, namespace="finance", claim="models", image=found, read_only=True) as pod:
        spec = api.peek(POD, pod.name)["spec"]
        assert {key: spec[key] for key in placement} == placement
        assert spec["containers"][0]["image"] == "other:1"


async def test_an_image_that_cannot_be_found_says_how_to_name_it(
    client: LoRAClient, api: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORA_JOB_IMAGE", raising=False)
    with pytest.raises(Invalid, match="set LORA_JOB_IMAGE"):
        await find(client)
    api.fail(403, match="/jobs")
    monkeypatch.setenv("LORA_JOB_IMAGE", "named:1")
    assert (await find(client)).name == "named:1"


def started(api: FakeApiServer) -> None:
    """A kubelet."""

    def start(obj: Json) -> None:
        if obj["kind"] == "Pod" and not obj.get("status"):
            running = {"phase": "Running", "containerStatuses": [{"name": "files", "state": {"running": {}}}]}
            api.set_status(POD, obj["metadata"]["name"], running)

    api.react = start


def pods(api: FakeApiServer) -> list[str]:
    return [name for plural, _, name in api.objects if plural == "pods"]


async def work(client: LoRAClient, said: list[str] | None = None, *, fail: bool = False) -> None:
    say = (lambda _: None) if said is None else said.append
    async with claim_pod(client.api, namespace="finance", claim="models", image=IMAGE, read_only=True, say=say):
        if fail:
            raise ZeroDivisionError


async def test_work_that_fails_takes_its_pod_along(client: LoRAClient, api: FakeApiServer) -> None:
    started(api)
    with pytest.raises(ZeroDivisionError):
        await work(client, fail=True)
    assert pods(api) == []


async def test_a_cancelled_wait_takes_its_pod_along(client: LoRAClient, api: FakeApiServer) -> None:
    waiting = asyncio.create_task(work(client))
    async with asyncio.timeout(20):
        while not pods(api):
            await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pods(api) == []


async def test_a_pod_whose_creation_was_not_answered_is_removed_too(client: LoRAClient, api: FakeApiServer) -> None:
    api.fail(0, match="/pods", method="POST", after=True)
    with pytest.raises(Unavailable):
        await work(client)
    assert pods(api) == []
    assert [line.split()[0] for line in api.requests][-2:] == ["POST", "DELETE"]


async def test_a_pod_that_cannot_be_removed_is_named(client: LoRAClient, api: FakeApiServer) -> None:
    started(api)
    api.fail(403, match="/pods/lora-files-", method="DELETE", times=2)
    with pytest.raises(Unavailable, match="kubectl delete pod lora-files-"):
        await work(client)
    said: list[str] = []
    with pytest.raises(ZeroDivisionError):
        await work(client, said, fail=True)
    assert "kubectl delete pod lora-files-" in said[-1]


async def test_what_killed_clients_left_is_swept_and_what_works_is_left_alone(
    client: LoRAClient, api: FakeApiServer
) -> None:
    started(api)
    labels = {"app.kubernetes.io/name": "lora-files", "app.kubernetes.io/managed-by": "lora-client"}
    for name, phase in (("ended", "Failed"), ("done", "Succeeded"), ("at-work", "Running")):
        api.put(POD, {"metadata": {"name": name, "labels": labels}, "status": {"phase": phase}})
    api.put(POD, {"metadata": {"name": "foreign"}, "status": {"phase": "Failed"}})
    await work(client)
    assert sorted(pods(api)) == ["at-work", "foreign"]


async def test_without_the_right_to_list_pods_it_still_works_up_to_the_watch(
    client: LoRAClient, api: FakeApiServer
) -> None:
    api.fail(403, match="labelSelector=app.kubernetes.io", method="GET", times=1)
    started(api)
    try:
        await work(client)
    except ClientError as error:
        pytest.fail(str(error))
    assert pods(api) == []

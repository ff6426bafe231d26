"""Log lines of the Jobs, and the progress among them."""

from typing import Any

import pytest

from lora_client.client import LoRAClient
from lora_client.errors import Invalid
from lora_client.logs import parse_progress
from lora_client.names import ADAPTER, LORA_DEPLOYMENT, POD
from tests.client.objects import adapter, deployment
from tests.fakes.api_server import FakeApiServer

LINE = '{"time": "2026-01-01T00:00:00.000+00:00", "stage": "merge", "done": 5, "total": 20, "unit": "B", "etaSeconds": 3.5}'


def pod(name: str, *, job: str, containers: list[str], started: list[str], phase: str = "Succeeded") -> dict[str, Any]:
    *first, last = containers
    return {
        "metadata": {"name": name, "labels": {"batch.kubernetes.io/job-name": job}},
        "spec": {"initContainers": [{"name": one} for one in first], "containers": [{"name": last}]},
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": one, "state": {"terminated": {}}} for one in started],
        },
    }


@pytest.fixture
def built(api: FakeApiServer) -> FakeApiServer:
    """An adapter whose two Jobs are over."""
    api.put(ADAPTER, adapter())
    api.set_status(
        ADAPTER, "fin", {"phase": "Ready", "jobs": {"merge": {"name": "fin-m"}, "validate": {"name": "fin-v"}}}
    )
    api.put(POD, pod("fin-m-x", job="fin-m", containers=["fetch", "merge"], started=["fetch", "merge"]))
    api.put(POD, pod("fin-v-x", job="fin-v", containers=["validate"], started=["validate"]))
    api.logs = {
        ("fin-m-x", "fetch"): ["fetched"],
        ("fin-m-x", "merge"): [LINE, "merged"],
        ("fin-v-x", "validate"): ["score 0.9"],
    }
    return api


@pytest.mark.parametrize("follow", [pytest.param(False, id="as it is"), pytest.param(True, id="followed")])
async def test_all_containers_of_both_jobs_come_in_the_order_in_which_they_ran(
    client: LoRAClient, built: FakeApiServer, follow: bool
) -> None:
    lines = [(line.container, line.text) async for line in client.adapter_logs("fin", follow=follow)]
    assert lines == [("fetch", "fetched"), ("merge", LINE), ("merge", "merged"), ("validate", "score 0.9")]


async def test_progress_is_told_apart_from_words(client: LoRAClient, built: FakeApiServer) -> None:
    found = [line.progress async for line in client.adapter_logs("fin", stage="merge")]
    assert [None if one is None else (one.stage, one.share, one.eta_seconds) for one in found] == [
        None,
        ("merge", 0.25, 3.5),
        None,
    ]


async def test_a_container_that_has_not_started_has_no_lines(client: LoRAClient, built: FakeApiServer) -> None:
    built.put(POD, pod("fin-m-x", job="fin-m", containers=["fetch", "merge"], started=["fetch"], phase="Running"))
    assert [line.container async for line in client.adapter_logs("fin", stage="merge")] == ["fetch"]


async def test_pods_that_were_removed_have_no_lines(client: LoRAClient, built: FakeApiServer) -> None:
    built.remove(POD, "fin-m-x")
    assert [line.container async for line in client.adapter_logs("fin")] == ["validate"]


async def test_an_unknown_stage_is_refused(client: LoRAClient, built: FakeApiServer) -> None:
    with pytest.raises(Invalid, match="expected merge or validate"):
        await anext(client.adapter_logs("fin", stage="train"))


async def test_the_end_of_the_serving_pods_logs_is_read(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(LORA_DEPLOYMENT, deployment())
    api.put(POD, {"metadata": {"name": "p", "labels": {"loraops.dev/deployment": "fin"}}, "spec": {"containers": []}})
    api.logs["p", "runtime"] = ["one", "two", "three"]
    assert [line.text async for line in client.deployment_logs("fin", tail=2)] == ["two", "three"]


@pytest.mark.parametrize(
    "line", ["", "merged", "{}", '{"stage": 1', '{"time": "x", "stage": "merge", "done": "a", "total": 1, "unit": "B"}']
)
def test_other_lines_are_not_progress(line: str) -> None:
    assert parse_progress(line) is None

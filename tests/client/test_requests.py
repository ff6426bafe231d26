"""One-shot requests: the right revision, a new nonce each time, and the operator's answer."""

import re
from typing import Any

import pytest

from lora_client.client import LoRAClient
from lora_client.errors import Invalid, NotFound, Refused, TimedOut
from lora_client.names import ADAPTER, CONTROLLER_REVISION, LORA_DEPLOYMENT, Verb
from lora_client.resource_client import split_deployment_id
from tests.client.objects import adapter, conditions, deployment, finished, stored_revision, version
from tests.fakes.api_server import FakeApiServer

Json = dict[str, Any]


@pytest.fixture
def rolled(api: FakeApiServer) -> FakeApiServer:
    """A deployment that served bbb before ccc, with aaa stored from longer ago."""
    api.put(LORA_DEPLOYMENT, deployment())
    for number, revision in enumerate(("aaa1", "bbb1", "ccc1"), start=1):
        api.put(CONTROLLER_REVISION, stored_revision("fin", revision, number=number))
    status(api, stable=version("ccc1"), history=[finished("ccc1"), finished("bbb1"), finished("aaa1")])
    return api


def status(api: FakeApiServer, *, phase: str = "Stable", **more: Any) -> None:
    ready = conditions(ready="True", reason="Stable", message="revision ccc1 serves")
    api.set_status(LORA_DEPLOYMENT, "fin", {"phase": phase, "conditions": ready, **more})


def annotations(api: FakeApiServer) -> Json:
    return api.peek(LORA_DEPLOYMENT, "fin")["metadata"].get("annotations", {})


def answering(api: FakeApiServer, *, result: str) -> None:
    """The operator answers every new request."""

    def react(obj: Json) -> None:
        for key, value in obj["metadata"].get("annotations", {}).items():
            verb = key.partition("/")[2]
            stored = api.peek(LORA_DEPLOYMENT, "fin")
            if stored.get("status", {}).get("lastRequests", {}).get(verb, {}).get("value") != value:
                answer = {"value": value, "time": "2026-01-01T00:00:00Z", "result": result}
                api.set_status(LORA_DEPLOYMENT, "fin", {**stored.get("status", {}), "lastRequests": {verb: answer}})

    api.react = react


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.PROMOTE_FULL, Verb.PAUSE, Verb.RESUME, Verb.ABORT])
async def test_a_request_during_a_rollout_is_about_the_candidate(
    client: LoRAClient, rolled: FakeApiServer, verb: Verb
) -> None:
    status(rolled, phase="Stepping", stable=version("ccc1"), candidate=version("ddd1"))
    await client.request("fin", verb, answer_seconds=None)
    assert re.fullmatch(r"ddd1/[0-9a-f]{8}", annotations(rolled)[f"loraops.dev/{verb}"])


async def test_a_second_request_is_a_new_one(client: LoRAClient, rolled: FakeApiServer) -> None:
    status(rolled, phase="Stepping", candidate=version("ddd1"))
    first = await client.request("fin", Verb.PROMOTE, answer_seconds=None)
    second = await client.request("fin", Verb.PROMOTE, answer_seconds=None)
    assert first.value != second.value


@pytest.mark.parametrize("phase", ["Aborted", "Stable", "Pending"])
@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.PAUSE])
async def test_a_candidate_that_was_given_up_is_no_rollout(
    client: LoRAClient, rolled: FakeApiServer, verb: Verb, phase: str
) -> None:
    status(rolled, phase=phase, stable=version("ccc1"), candidate=version("ddd1"))
    with pytest.raises(Refused, match="no rollout is running"):
        await client.request("fin", verb)
    assert annotations(rolled) == {}


async def test_a_rollback_does_not_go_to_the_revision_that_was_given_up(
    client: LoRAClient, rolled: FakeApiServer
) -> None:
    rolled.put(CONTROLLER_REVISION, stored_revision("fin", "ddd1", number=4))
    given_up = {"abort": {"revision": "ddd1", "reason": "PodFailed"}}
    status(rolled, phase="Aborted", stable=version("ccc1"), candidate=version("ddd1"), **given_up)
    request = await client.rollback_deployment("fin", answer_seconds=None)
    assert request.value.startswith("bbb1/")


async def test_without_a_rollout_there_is_nothing_to_promote(client: LoRAClient, rolled: FakeApiServer) -> None:
    with pytest.raises(
        Refused, match=r"nothing to promote full: no rollout is running; it is Stable \(revision ccc1 serves\)"
    ):
        await client.request("fin", Verb.PROMOTE_FULL)
    assert annotations(rolled) == {}


@pytest.mark.parametrize(
    ("found", "revision"),
    [
        pytest.param({"abort": {"revision": "ddd1", "reason": "PodFailed"}}, "ddd1", id="what was given up"),
        pytest.param({"heldRevision": "eee1"}, "eee1", id="what is held"),
    ],
)
async def test_retry_is_about(client: LoRAClient, rolled: FakeApiServer, found: Json, revision: str) -> None:
    status(rolled, stable=version("ccc1"), **found)
    request = await client.request("fin", Verb.RETRY, answer_seconds=None)
    assert request.value.startswith(f"{revision}/")


async def test_retry_without_a_failure_is_refused(client: LoRAClient, rolled: FakeApiServer) -> None:
    with pytest.raises(Refused, match="nothing to retry"):
        await client.request("fin", Verb.RETRY)


@pytest.mark.parametrize(
    ("found", "revision"),
    [
        pytest.param({"stable": "ccc1"}, "bbb1", id="what served before"),
        pytest.param(
            {"phase": "Stepping", "stable": "ccc1", "candidate": "ddd1"}, "ccc1", id="during a rollout what serves now"
        ),
        pytest.param(
            {"phase": "Aborted", "stable": "ccc1", "candidate": "ddd1"},
            "bbb1",
            id="after a rollout that was given up what served before",
        ),
        pytest.param({"stable": "ccc1", "previous": "aaa1"}, "aaa1", id="a version that is still warm"),
        pytest.param({"stable": "bbb1"}, "ccc1", id="after a rollback the version that was left"),
    ],
)
async def test_a_rollback_goes_to(
    client: LoRAClient, rolled: FakeApiServer, found: dict[str, str], revision: str
) -> None:
    history = [finished("ccc1"), finished("xxx1", result="RolledBack"), finished("bbb1")]
    roles = {role: version(name) for role, name in found.items() if role != "phase"}
    status(rolled, phase=found.get("phase", "Stable"), history=history, **roles)
    request = await client.rollback_deployment("finance/fin/ccc1", answer_seconds=None)
    assert request.value.startswith(f"{revision}/")


async def test_a_first_version_has_nothing_to_go_back_to(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(LORA_DEPLOYMENT, deployment())
    status(api, stable=version("ccc1"), history=[finished("ccc1")])
    with pytest.raises(Refused, match="no older version"):
        await client.rollback_deployment("fin")


@pytest.mark.parametrize(
    ("given", "taken"),
    [pytest.param("aaa1", "aaa1", id="whole"), pytest.param("a", "aaa1", id="its beginning")],
)
async def test_a_stored_revision_may_be_named(
    client: LoRAClient, rolled: FakeApiServer, given: str, taken: str
) -> None:
    request = await client.rollback_deployment("fin", revision=given, answer_seconds=None)
    assert request.value.startswith(f"{taken}/")


async def test_a_revision_that_is_not_stored_is_answered_with_those_that_are(
    client: LoRAClient, rolled: FakeApiServer
) -> None:
    with pytest.raises(NotFound, match=r"revision bbb2 is not in LoRADeployment finance/fin; there is bbb1"):
        await client.rollback_deployment("fin", revision="bbb2")


async def test_a_beginning_that_fits_several_is_refused(client: LoRAClient, rolled: FakeApiServer) -> None:
    rolled.put(CONTROLLER_REVISION, stored_revision("fin", "aaa2", number=4))
    with pytest.raises(Refused, match="not unique: aaa1, aaa2"):
        await client.rollback_deployment("fin", revision="aaa")


async def test_revisions_are_told_newest_first_and_only_the_deployments_own(
    client: LoRAClient, rolled: FakeApiServer
) -> None:
    rolled.put(CONTROLLER_REVISION, stored_revision("other", "zzz1", number=9))
    assert [one.revision for one in await client.revisions("fin")] == ["ccc1", "bbb1", "aaa1"]


@pytest.mark.parametrize(
    ("result", "ignored"),
    [
        pytest.param("Accepted", False, id="accepted"),
        pytest.param("Ignored: no rollout is running", True, id="ignored, with why"),
    ],
)
async def test_the_operators_answer_is_returned(
    client: LoRAClient, rolled: FakeApiServer, result: str, ignored: bool
) -> None:
    answering(rolled, result=result)
    answer = await client.rollback_deployment("fin")
    assert (answer.result, answer.ignored) == (result, ignored)


async def test_an_operator_that_is_not_there_is_told_as_such(client: LoRAClient, rolled: FakeApiServer) -> None:
    with pytest.raises(TimedOut, match=r"the operator did not answer rollback-to within 0\.1 s; the request stays"):
        await client.rollback_deployment("fin", answer_seconds=0.1)


async def test_a_failed_adapter_is_retried_by_annotation(client: LoRAClient, api: FakeApiServer) -> None:
    api.put(ADAPTER, adapter())
    await client.retry_adapter("fin")
    assert api.peek(ADAPTER, "fin")["metadata"]["annotations"]["loraops.dev/retry"]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        pytest.param("fin", (None, "fin", ""), id="a name"),
        pytest.param("team/fin", ("team", "fin", ""), id="namespace and name"),
        pytest.param("team/fin/abc", ("team", "fin", "abc"), id="with a revision"),
    ],
)
def test_a_deployment_id_is(given: str, parts: tuple[str | None, str, str]) -> None:
    assert split_deployment_id(given) == parts


@pytest.mark.parametrize("given", ["", "/fin", "a/b/c/d", "a//b"])
def test_a_deployment_id_is_not(given: str) -> None:
    with pytest.raises(Invalid, match="deployment id"):
        split_deployment_id(given)

"""How a build or rollout stands, as a table: still going, or over with which exit code."""

from typing import Any

import pytest

from loractl.verdict import verdict_of_pair
from tests.client.loractl.conftest import adapter, deployment, ready_adapter, ready_condition, stable_deployment

Json = dict[str, Any]


def build(phase: str, reason: str, *, stalled: bool = True) -> Json:
    return adapter(phase=phase, conditions=ready_condition(reason=reason, message="words", stalled=stalled))


def rollout(phase: str, reason: str, *, stalled: bool = False) -> Json:
    return deployment(phase=phase, conditions=ready_condition(reason=reason, message="words", stalled=stalled))


def cancelled(raw: Json) -> Json:
    raw["metadata"]["labels"] = {"loraops.dev/workflow-cancelled": "true"}
    return raw


def unseen(raw: Json) -> Json:
    raw["metadata"]["generation"] = 2
    return raw


TABLE = [
    pytest.param(None, ready_adapter(), 0, id="an adapter that may be served is done well"),
    pytest.param(None, build("Merging", "Merging", stalled=False), None, id="a merge goes on"),
    pytest.param(
        None,
        build("Merging", "OutOfMemory", stalled=False),
        None,
        id="a failed attempt with another one to come goes on",
    ),
    pytest.param(None, build("Rejected", "GatesFailed"), 3, id="a failed gate is 3"),
    pytest.param(None, build("Failed", "WrongBase"), 2, id="refused input is 2"),
    pytest.param(None, build("Failed", "NotSupportedYet"), 2, id="a field that does nothing yet is 2"),
    pytest.param(None, build("Failed", "RetriesSpent"), 1, id="spent retries are 1"),
    pytest.param(None, build("Failed", "DeadlineExceeded"), 1, id="a timeout is 1"),
    pytest.param(None, unseen(ready_adapter()), None, id="Ready of an older spec is not Ready"),
    pytest.param(None, cancelled(build("Suspended", "Suspended", stalled=False)), 1, id="a cancelled build is over"),
    pytest.param(stable_deployment(), ready_adapter(), 0, id="what serves is done well"),
    pytest.param(rollout("Preparing", "Preparing"), ready_adapter(), None, id="a rollout goes on"),
    pytest.param(
        rollout("Aborted", "PodFailed", stalled=True), ready_adapter(), 3, id="a rollout that was given up is 3"
    ),
    pytest.param(
        rollout("Pending", "AdapterNotReady", stalled=True),
        build("Rejected", "GatesFailed"),
        3,
        id="a deployment behind a failed gate is 3",
    ),
    pytest.param(
        rollout("Pending", "AdapterNotReady", stalled=True),
        build("Failed", "WrongBase"),
        2,
        id="a deployment behind refused input is 2",
    ),
    pytest.param(
        rollout("Pending", "AdapterNotReady"),
        build("Merging", "Merging", stalled=False),
        None,
        id="a deployment behind a merge goes on",
    ),
    pytest.param(
        rollout("Pending", "AdapterNotReady"),
        ready_adapter(),
        None,
        id="a deployment that has not noticed its ready adapter goes on",
    ),
    pytest.param(rollout("Pending", "InsufficientGPU"), ready_adapter(), None, id="missing GPUs may come"),
    pytest.param(
        rollout("Pending", "InsufficientMemory", stalled=True), ready_adapter(), 2, id="a model too large is 2"
    ),
    pytest.param(unseen(stable_deployment()), ready_adapter(), None, id="Stable of an older spec is not done"),
    pytest.param(rollout("Pending", "AdapterNotFound"), None, None, id="a missing adapter may be applied yet"),
]


@pytest.mark.parametrize(("deployed", "built", "code"), TABLE)
def test_a_verdict_is(deployed: Json | None, built: Json | None, code: int | None) -> None:
    verdict = verdict_of_pair(deployed, built)
    assert verdict.exit_code == code
    assert verdict.over == (code is not None)
    assert verdict.sentence.startswith("LoRA")

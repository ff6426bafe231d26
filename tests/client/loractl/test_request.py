"""promote, pause, abort, retry, rollback: the annotation that is written, and what the operator's answer becomes."""

from typing import Any

import pytest

from lora_client.names import ADAPTER, CONTROLLER_REVISION, LORA_DEPLOYMENT
from tests.client.loractl.conftest import (
    Terminal,
    adapter,
    deployment,
    ready_adapter,
    ready_condition,
    stable_deployment,
    version,
)
from tests.client.loractl.whole_cluster import WholeCluster

Json = dict[str, Any]
VERBS = ["promote", "promote-full", "pause", "resume", "abort"]


def rolling() -> Json:
    return deployment(
        phase="Paused",
        conditions=ready_condition(reason="Paused"),
        stable=version("61fd0d39", ref="fin-v1", weight=95),
        candidate=version("8adf1c02", ref="fin-v2", weight=5),
    )


def answering(cluster: WholeCluster, result: str, **then: Any) -> None:
    """The operator: records every new request with this result."""

    def react(stored: Json) -> None:
        if stored["kind"] != LORA_DEPLOYMENT.kind:
            return
        asked = {
            key.removeprefix("loraops.dev/"): {"value": value, "time": "2026-01-01T12:00:00Z", "result": result}
            for key, value in (stored["metadata"].get("annotations") or {}).items()
        }
        cluster.set_status(
            LORA_DEPLOYMENT, stored["metadata"]["name"], {**stored["status"], "lastRequests": asked, **then}
        )

    cluster.react = react


@pytest.mark.parametrize("verb", VERBS)
def test_a_request_is_about_the_candidate(loractl: Terminal, cluster: WholeCluster, verb: str) -> None:
    cluster.put(LORA_DEPLOYMENT, rolling())
    answering(cluster, "Done")
    result = loractl(verb, "fin-assistant")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"LoRADeployment fin-assistant: {verb} of revision 8adf1c02 done\n"
    written = cluster.peek(LORA_DEPLOYMENT, "fin-assistant")["metadata"]["annotations"][f"loraops.dev/{verb}"]
    assert written.startswith("8adf1c02/")


def test_two_requests_are_two(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, rolling())
    answering(cluster, "Done")
    values = []
    for _ in range(2):
        loractl("promote", "fin-assistant")
        values.append(cluster.peek(LORA_DEPLOYMENT, "fin-assistant")["metadata"]["annotations"]["loraops.dev/promote"])
    assert values[0] != values[1]


def test_a_request_that_was_ignored_is_an_error_with_the_reason(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, rolling())
    answering(cluster, "Ignored: promote has no meaning under strategy Replace")
    result = loractl("promote", "fin-assistant")
    assert result.exit_code == 2
    assert "was not done: promote has no meaning under strategy Replace" in result.stderr


def test_nothing_is_asked_where_no_rollout_runs(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, stable_deployment())
    result = loractl("promote", "fin-assistant")
    assert result.exit_code == 2
    assert "no rollout is running" in result.stderr
    assert "annotations" not in cluster.peek(LORA_DEPLOYMENT, "fin-assistant")["metadata"]


def test_without_waiting_the_request_is_only_stored(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, rolling())
    result = loractl("abort", "fin-assistant", "--no-wait")
    assert result.exit_code == 0
    assert result.stdout == "LoRADeployment fin-assistant: abort of revision 8adf1c02 asked for\n"


def test_an_abort_that_is_followed_ends_well_in_aborted(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, rolling())
    answering(cluster, "Accepted", phase="Aborted")
    assert loractl("abort", "fin-assistant", "--watch").exit_code == 0


def test_a_promotion_that_is_followed_into_an_abort_is_3(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, rolling())
    answering(cluster, "Done", phase="Aborted")
    result = loractl("promote", "fin-assistant", "--watch")
    assert result.exit_code == 3
    assert "is Aborted" in result.stdout


@pytest.mark.parametrize(
    ("to", "expected"),
    [((), "11aa22bb"), (("--to", "77"), "77cc88dd")],
    ids=["what served before", "a beginning of a name"],
)
def test_rollback_goes_to(loractl: Terminal, cluster: WholeCluster, to: tuple[str, ...], expected: str) -> None:
    history = [
        {"deploymentId": "finance/fin-assistant/61fd0d39", "result": "Succeeded"},
        {"deploymentId": "finance/fin-assistant/11aa22bb", "result": "Succeeded"},
    ]
    cluster.put(LORA_DEPLOYMENT, stable_deployment(history=history))
    for number, revision in enumerate(("77cc88dd", "11aa22bb", "61fd0d39")):
        meta = {"name": f"fin-assistant-{revision}", "labels": {"loraops.dev/deployment": "fin-assistant"}}
        cluster.put(CONTROLLER_REVISION, {"metadata": meta, "revision": number, "data": {"revision": revision}})
    answering(cluster, "Accepted")
    result = loractl("rollback", "fin-assistant", *to)
    assert result.exit_code == 0, result.stderr
    assert f"rollback-to of revision {expected} accepted" in result.stdout


def test_retry_of_a_failed_adapter_is_one_more_attempt(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(ADAPTER, adapter(phase="Failed", conditions=ready_condition(reason="RetriesSpent", stalled=True)))
    assert loractl("retry", "fin-v2").exit_code == 0
    assert cluster.peek(ADAPTER, "fin-v2")["metadata"]["annotations"]["loraops.dev/retry"]


def test_retry_of_a_deployment_goes_to_the_adapter_that_failed(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, deployment(phase="Pending", conditions=ready_condition(reason="AdapterNotReady")))
    cluster.put(ADAPTER, adapter(phase="Failed", conditions=ready_condition(reason="RetriesSpent", stalled=True)))
    assert "LoRAAdapter fin-v2: one more attempt" in loractl("retry", "fin-assistant").stdout


def test_retry_of_a_revision_that_was_given_up_names_it(loractl: Terminal, cluster: WholeCluster) -> None:
    given_up = {"revision": "8adf1c02", "reason": "PodFailed"}
    cluster.put(
        LORA_DEPLOYMENT, deployment(phase="Aborted", conditions=ready_condition(reason="PodFailed"), abort=given_up)
    )
    cluster.put(ADAPTER, ready_adapter())
    answering(cluster, "Accepted")
    assert "retry of revision 8adf1c02 accepted" in loractl("retry", "fin-assistant").stdout


def test_retry_where_nothing_failed_is_refused(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, stable_deployment())
    cluster.put(ADAPTER, ready_adapter())
    result = loractl("retry", "fin-assistant")
    assert result.exit_code == 2
    assert "nothing to retry" in result.stderr

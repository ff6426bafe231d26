"""The chain of sentences, as a table: what was seen, where the cause is found, what a person is told to do."""

from typing import Any

import pytest

from lora_operator.api.reasons import Reason
from loractl.explain import Seen, explain
from loractl.mends import mend_of, mends
from loractl.pods import pod_summary
from tests.client.loractl.conftest import (
    adapter,
    deployment,
    job,
    job_pod,
    pod,
    ready_adapter,
    ready_condition,
    stable_deployment,
    version,
)

Json = dict[str, Any]
OWN = '{"schemaVersion": 1, "outcome": "Refused", "reason": "WrongBase", "message": "names another-model"}'


def building(
    reason: str, message: str = "Job fin-v2-m-1-1", *, phase: str = "Merging", stalled: bool = False, **record: Any
) -> Json:
    return adapter(
        phase=phase,
        conditions=ready_condition(reason=reason, message=message, stalled=stalled),
        jobs={"merge": {"name": "fin-v2-m-1-1", "attempt": 1, **record}},
    )


def waiting_for_adapter() -> Json:
    return deployment(
        phase="Pending",
        conditions=ready_condition(reason="AdapterNotReady", message="LoRAAdapter fin-v2 is Failed", stalled=True),
    )


def terminated(container: str, code: int, *, reason: str = "Error", message: str = "", **more: Any) -> Json:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return {"name": container, "state": state, "restartCount": 0, **more}


def serving_pod(**status: Any) -> Json:
    return pod(
        "fin-assistant-8adf-x",
        labels={"loraops.dev/deployment": "fin-assistant", "loraops.dev/revision": "8adf"},
        **status,
    )


def rolling(reason: str = "Preparing", *, phase: str = "Preparing", **more: Any) -> Json:
    return deployment(
        phase=phase,
        conditions=ready_condition(
            reason=reason, message="revision 8adf: 0 of 1 pods ready", stalled=phase == "Aborted"
        ),
        stable=version("61fd", ref="fin-v1", weight=100),
        candidate=version("8adf", ref="fin-v2", weight=0, ready=0),
        **more,
    )


UNSCHEDULABLE = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes: 1 Insufficient nvidia.com/gpu",
        }
    ]
}
PULL = {
    "containerStatuses": [
        {
            "name": "runtime",
            "image": "reg/x:1",
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
        }
    ]
}
CRASH = {"containerStatuses": [terminated("runtime", 1, message="line one\nCUDA out of memory")]}
OOM = {"containerStatuses": [terminated("merge", 137, reason="OOMKilled")]}
REFUSED = {"containerStatuses": [terminated("merge", 2, message=OWN)], "phase": "Failed"}
MOUNT = {
    "type": "Warning",
    "reason": "FailedMount",
    "message": "claim models: no such volume",
    "involvedObject": {"kind": "Pod", "name": "fin-v2-m-1-1-x"},
}

CHAINS = [
    pytest.param(
        Seen(
            adapter=building("Merging"),
            jobs=[job()],
            pods=[job_pod(containerStatuses=[{"name": "merge", "state": {"running": {}}}])],
        ),
        ["LoRAAdapter fin-v2", "Job fin-v2-m-1-1", "Pod fin-v2-m-1-1-x"],
        "LoRAAdapter fin-v2",
        "Wait.",
        id="a merge that runs is followed down to its pod and only waited for",
    ),
    pytest.param(
        Seen(
            deployment=waiting_for_adapter(),
            adapter=building("WrongBase", "names another-model", phase="Failed", stalled=True, result="Refused"),
            jobs=[job(failed="PodFailurePolicy")],
            pods=[job_pod(**REFUSED)],
        ),
        ["LoRADeployment fin-assistant", "LoRAAdapter fin-v2", "Job fin-v2-m-1-1", "Pod fin-v2-m-1-1-x"],
        "Pod fin-v2-m-1-1-x",
        "loractl retry fin-v2",
        id="a refused input is found behind the deployment that waits for it, with the pod's own words",
    ),
    pytest.param(
        Seen(deployment=deployment(ref="typo", phase="Pending", conditions=ready_condition(reason="AdapterNotFound"))),
        ["LoRADeployment fin-assistant", "LoRAAdapter typo"],
        "LoRAAdapter typo",
        "Correct the name",
        id="a name of nobody ends the chain at the missing adapter",
    ),
    pytest.param(
        Seen(adapter=building("PodUnschedulable", "no node takes it"), jobs=[job()], pods=[job_pod(**UNSCHEDULABLE)]),
        ["LoRAAdapter fin-v2", "Job fin-v2-m-1-1", "Pod fin-v2-m-1-1-x"],
        "Pod fin-v2-m-1-1-x",
        "nodeSelector",
        id="a pod that no node takes carries the scheduler's words",
    ),
    pytest.param(
        Seen(
            adapter=building("OutOfMemory", "killed", nextAttemptAt="2026-01-01T12:01:00Z", result="Retry"),
            jobs=[job(failed="BackoffLimitExceeded")],
            pods=[job_pod(**OOM)],
        ),
        ["LoRAAdapter fin-v2", "Job fin-v2-m-1-1", "Pod fin-v2-m-1-1-x"],
        "Pod fin-v2-m-1-1-x",
        "more memory",
        id="an out-of-memory kill says memory",
    ),
    pytest.param(
        Seen(adapter=building("Resolving"), jobs=[job()], pods=[job_pod()], events=[MOUNT]),
        ["LoRAAdapter fin-v2", "Job fin-v2-m-1-1", "Pod fin-v2-m-1-1-x", "Event of pod fin-v2-m-1-1-x"],
        "Event of pod fin-v2-m-1-1-x",
        "Wait",
        id="a volume that does not mount is known from an Event only",
    ),
    pytest.param(
        Seen(deployment=rolling(), adapter=ready_adapter(), pods=[serving_pod(**PULL)]),
        ["LoRADeployment fin-assistant", "Pod fin-assistant-8adf-x"],
        "Pod fin-assistant-8adf-x",
        "pull secret",
        id="a candidate whose image is not there is found at its pod",
    ),
    pytest.param(
        Seen(
            deployment=rolling("PodFailed", phase="Aborted", abort={"revision": "8adf", "reason": "PodFailed"}),
            adapter=ready_adapter(),
            pods=[serving_pod(**CRASH)],
        ),
        ["LoRADeployment fin-assistant", "Pod fin-assistant-8adf-x"],
        "Pod fin-assistant-8adf-x",
        "loractl logs fin-assistant",
        id="a rollout that was given up because its pod crashed shows the pod's last line",
    ),
    pytest.param(
        Seen(
            deployment=rolling(),
            adapter=ready_adapter(),
            pods=[pod("other", labels={"loraops.dev/deployment": "other", "loraops.dev/revision": "8adf"}, **CRASH)],
        ),
        ["LoRADeployment fin-assistant"],
        "LoRADeployment fin-assistant",
        "Wait.",
        id="a crashing pod of another deployment is not blamed",
    ),
    pytest.param(
        Seen(adapter={**adapter(), "status": {}}),
        ["LoRAAdapter fin-v2"],
        "LoRAAdapter fin-v2",
        "loractl doctor",
        id="an object that no operator looks at leads to the doctor",
    ),
    pytest.param(
        Seen(
            adapter=building(
                "GatesFailed", "gate score FAIL: observed 0.3, threshold 0.8", phase="Rejected", stalled=True
            )
        ),
        ["LoRAAdapter fin-v2", "Job fin-v2-m-1-1"],
        "LoRAAdapter fin-v2",
        "Read the report",
        id="a failed gate leads to the report even when the Job is gone",
    ),
    pytest.param(
        Seen(deployment=stable_deployment(), adapter=ready_adapter()),
        ["LoRADeployment fin-assistant"],
        "LoRADeployment fin-assistant",
        "",
        id="what serves has nothing to explain",
    ),
]


@pytest.mark.parametrize(("seen", "subjects", "cause", "todo"), CHAINS)
def test_the_chain_ends_at_the_cause(seen: Seen, subjects: list[str], cause: str, todo: str) -> None:
    told = explain(seen)
    assert [link.subject for link in told.links] == subjects
    assert told.cause.subject == cause
    assert todo in " ".join(told.todo)
    assert bool(told.todo) == bool(todo)


def test_the_words_of_a_refusal_reach_the_reader() -> None:
    told = explain(
        Seen(
            adapter=building("WrongBase", phase="Failed", stalled=True, result="Refused"),
            jobs=[job(failed="x")],
            pods=[job_pod(**REFUSED)],
        )
    )
    assert told.cause.sentence == "container merge ended with exit code 2: WrongBase: names another-model"


def test_a_container_that_failed_once_and_is_ready_again_is_no_trouble() -> None:
    healed = {"name": "runtime", "ready": True, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}
    told = explain(
        Seen(
            deployment=rolling(),
            adapter=ready_adapter(),
            pods=[serving_pod(phase="Running", containerStatuses=[healed])],
        )
    )
    assert told.links[-1].sentence == pod_summary(serving_pod(phase="Running", containerStatuses=[healed]))
    assert not told.links[-1].trouble


def test_the_validate_job_counts_once_there_is_an_artifact() -> None:
    found = building("Validating", phase="Validating")
    found["status"]["conditions"].append({"type": "Merged", "status": "True"})
    found["status"]["jobs"]["validate"] = {"name": "fin-v2-v-1-1", "attempt": 2}
    told = explain(Seen(adapter=found))
    assert told.links[1].subject == "Job fin-v2-v-1-1"
    assert "attempt 2" in told.links[1].sentence


def test_every_reason_of_the_operator_has_a_mend_here() -> None:
    assert {str(reason) for reason in Reason} - set(mends()) == set()


def test_a_mend_names_the_object_it_is_about() -> None:
    assert "`loractl report fin-v2`" in mend_of("QualityWarning", name="fin-v2").todo
    assert mend_of("Stable", name="x").todo == ""


def test_a_refusal_is_mended_as_its_line_says_and_asked_again() -> None:
    todo = mend_of("TruncatedFile", name="fin-v2", refused=True).todo
    assert todo.startswith("Copy it again. Then make a new LoRAAdapter")
    assert "`loractl retry fin-v2`" in todo


def test_a_refusal_that_the_page_does_not_know_has_the_common_mend() -> None:
    assert "loractl retry fin-v2" in mend_of("SomethingNew", name="fin-v2", refused=True).todo
    assert mend_of("SomethingNew", name="fin-v2").todo == ""

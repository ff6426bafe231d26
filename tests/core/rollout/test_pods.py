"""What a pod's status says in words."""

from typing import Any

import pytest

from lora_operator.core.rollout.pods import TroubleKind, parse_pod


def pod(status: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", **meta},
        "status": status,
    }


def container(name: str = "runtime", **fields: Any) -> dict[str, Any]:
    return {"name": name, "restartCount": 0, "ready": False, "image": "x:1", **fields}


REFUSED = (
    '{"schemaVersion":1,"outcome":"Refused","reason":"DigestMismatch","message":"expected sha256:a, found sha256:b"}'
)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        pytest.param(
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
                ]
            },
            TroubleKind.UNSCHEDULABLE,
            "0/1 nodes",
            id="the scheduler's words",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}})
                ]
            },
            TroubleKind.IMAGE,
            "x:1: no such tag",
            id="the image and the kubelet's words",
        ),
        pytest.param(
            {"containerStatuses": [container(state={"waiting": {"reason": "InvalidImageName"}})]},
            TroubleKind.IMAGE_NEVER,
            "InvalidImageName",
            id="an image name that can never be pulled",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    container(
                        restartCount=2,
                        state={"waiting": {"reason": "CrashLoopBackOff"}},
                        lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "a\nb\n"}},
                    )
                ]
            },
            TroubleKind.CRASH,
            "OOMKilled (exit 137), 2 restarts: b",
            id="a crash loop's last line",
        ),
        pytest.param(
            {
                "initContainerStatuses": [
                    container("verify", state={"terminated": {"exitCode": 2, "reason": "Error", "message": REFUSED}})
                ]
            },
            TroubleKind.REFUSED,
            "DigestMismatch: expected sha256:a",
            id="the digest check's sentence",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    container(
                        state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}}
                    )
                ]
            },
            TroubleKind.CONFIG,
            'secret "x" not found',
            id="a missing secret",
        ),
    ],
)
def test_trouble(status: dict[str, Any], kind: TroubleKind, words: str) -> None:
    trouble = parse_pod(pod(status)).trouble
    assert trouble is not None
    assert trouble.kind is kind
    assert words in trouble.message


def test_a_container_that_runs_again_and_is_ready_has_no_trouble() -> None:
    again = container(ready=True, restartCount=1, state={"running": {}}, lastState={"terminated": {"exitCode": 1}})
    assert parse_pod(pod({"containerStatuses": [again]})).trouble is None


def test_a_pod_that_is_leaving_is_neither_ready_nor_in_trouble() -> None:
    found = parse_pod(
        pod({"conditions": [{"type": "Ready", "status": "True"}]}, deletionTimestamp="2026-01-01T00:00:00Z")
    )
    assert (found.ready, found.leaving, found.trouble) == (False, True, None)


def test_a_fresh_pod_without_status_is_not_ready() -> None:
    assert parse_pod({"metadata": {"name": "p", "uid": "u"}}).ready is False

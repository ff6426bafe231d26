"""The status survives a round trip: zeros, unknown fields, every part."""

from typing import Any

import pytest

from lora_operator.core.rollout.status import Phase, RolloutStatus

FULL: dict[str, Any] = {
    "observedGeneration": 7,
    "phase": "Promoting",
    "conditions": [{"type": "Ready", "status": "False"}],
    "replicas": 0,
    "selector": "",
    "stable": {"revision": "a1", "adapter": "v1", "artifactDigest": "sha256:1", "weight": 0, "readyReplicas": 0},
    "candidate": {
        "revision": "b2",
        "adapter": "v2",
        "artifactDigest": "sha256:2",
        "weight": 0,
        "targetWeight": 0,
        "readyReplicas": 1,
    },
    "previous": {
        "revision": "c3",
        "adapter": "v0",
        "artifactDigest": "sha256:0",
        "weight": 0,
        "readyReplicas": 1,
        "keepUntil": "2026-01-01T00:00:00Z",
        "drainUntil": "2026-01-01T00:01:00Z",
    },
    "heldRevision": "d4",
    "step": {
        "index": 0,
        "of": 5,
        "sub": "Shift",
        "startedAt": "2026-01-01T00:00:00Z",
        "deadline": "2026-01-01T00:30:00Z",
        "message": "",
        "scale": 0,
        "prefix": "0123456789abcdef",
    },
    "pause": {
        "reason": "SpecPaused",
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-01-01T01:00:00Z",
        "phase": "Stepping",
    },
    "abort": {"revision": "b2", "reason": "PodFailed", "message": "m", "evidence": {"restarts": 0}},
    "lastRequests": {"abort": {"value": "b2/1", "time": "2026-01-01T00:00:00Z", "result": "Accepted"}},
    "downtime": {"seconds": 0, "since": "2026-01-01T00:00:00Z"},
    "endpoints": ["http://x/v1/chat/completions"],
    "history": [
        {
            "deploymentId": "ns/fin/a1",
            "adapter": "v1",
            "strategy": "Replace",
            "startTime": "2026-01-01T00:00:00Z",
            "completionTime": "2026-01-01T00:00:00Z",
            "durationSeconds": 0,
            "result": "Succeeded",
            "reason": "Promoted",
        }
    ],
    "effective": {"forceDeploy": {"adapter": "v2", "gates": []}},
    "profileOutdated": False,
    "ofALaterVersion": {"zero": 0},
}


def test_round_trip_loses_nothing() -> None:
    assert RolloutStatus.from_json(FULL).to_json() == FULL


@pytest.mark.parametrize("key", [key for key in FULL if key not in ("phase", "conditions")])
def test_each_part_may_be_missing(key: str) -> None:
    raw = {k: v for k, v in FULL.items() if k != key}
    assert RolloutStatus.from_json(raw).phase is Phase.PROMOTING


def test_an_empty_status_is_that_of_an_unseen_resource() -> None:
    assert RolloutStatus.from_json({}) == RolloutStatus()

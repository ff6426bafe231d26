"""Weights are a pure function of status: exhaustively over every phase and version."""

import itertools

import pytest

from lora_operator.core.rollout.status import Phase, RolloutStatus, Version
from lora_operator.core.rollout.weights import weights_of

STABLE = Version(revision="s", adapter="v1", artifact_digest="d")
CANDIDATES = [
    None,
    *(Version(revision="c", adapter="v2", artifact_digest="e", target_weight=w) for w in (None, 0, 5, 100)),
]


@pytest.mark.parametrize("phase", Phase)
def test_shares_sum_to_100_or_there_are_none(phase: Phase) -> None:
    for stable, candidate in itertools.product((None, STABLE), CANDIDATES):
        if stable is None and candidate is not None and candidate.target_weight == 5:
            continue  # a part of the traffic is never announced while nothing else serves
        shares = weights_of(RolloutStatus(phase=phase, stable=stable, candidate=candidate))
        assert sum(shares.values()) in (0, 100)
        assert all(share > 0 for share in shares.values())


def test_nothing_observed_moves_a_share() -> None:
    calm = RolloutStatus(phase=Phase.STABLE, stable=STABLE)
    seen = RolloutStatus(
        phase=Phase.STABLE,
        stable=Version(revision="s", adapter="v1", artifact_digest="d", weight=3, ready_replicas=0),
        replicas=9,
    )
    assert weights_of(calm) == weights_of(seen) == {"s": 100}


def test_a_deletion_has_no_route() -> None:
    assert weights_of(RolloutStatus(phase=Phase.DELETING, stable=STABLE)) == {}

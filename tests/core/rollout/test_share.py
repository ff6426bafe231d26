"""Shares of requests as numbers of pods: near the weight, never fewer pods than needed."""

import pytest

from lora_operator.core.rollout.share import InService, in_service, nearest_share, reachable


@pytest.mark.parametrize(
    ("replicas", "weight", "pods"),
    [
        pytest.param(4, 25, InService(stable=3, candidate=1), id="a quarter of four"),
        pytest.param(4, 50, InService(stable=2, candidate=2), id="half of four"),
        pytest.param(1, 50, InService(stable=1, candidate=1), id="one beside one is a half"),
        pytest.param(2, 33, InService(stable=2, candidate=1), id="one beside two is a third"),
        pytest.param(20, 5, InService(stable=19, candidate=1), id="five of a hundred needs twenty"),
        pytest.param(4, 0, InService(stable=4, candidate=0), id="nothing"),
        pytest.param(4, 100, InService(stable=0, candidate=4), id="everything"),
        pytest.param(0, 50, InService(stable=1, candidate=1), id="no replicas count as one"),
    ],
)
def test_numbers_of_pods(replicas: int, weight: int, pods: InService) -> None:
    assert in_service(replicas=replicas, weight=weight) == pods


def test_t2_no_share_takes_capacity_away_and_no_pod_is_used_that_a_canary_does_not_have() -> None:
    for replicas in range(1, 33):
        for weight in range(101):
            pods = in_service(replicas=replicas, weight=weight)
            assert replicas <= pods.stable + pods.candidate
            assert pods.stable <= replicas
            assert pods.candidate <= max(1, -(-replicas * weight // 100))
            assert (pods.candidate > 0) == (weight > 0), (
                "a weight is never rounded to nothing, nothing never to a weight"
            )


@pytest.mark.parametrize(
    ("replicas", "weight", "says"),
    [(1, 50, True), (1, 45, True), (1, 44, False), (1, 5, False), (4, 20, True), (4, 14, False), (20, 5, True)],
)
def test_a_weight_is_reachable_within_5_points(replicas: int, weight: int, says: bool) -> None:
    assert reachable(replicas=replicas, weight=weight) is says
    assert (abs(nearest_share(replicas=replicas, weight=weight) - weight) <= 5) is says


def test_from_20_replicas_on_every_weight_is_reachable() -> None:
    assert all(reachable(replicas=replicas, weight=w) for replicas in range(20, 64) for w in range(101))

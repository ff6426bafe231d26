"""GPU supply: what is read from nodes and pods, and how a version fits into it."""

from typing import Any

import pytest

from lora_operator.core.rollout.capacity import Fit, GpuNeed, Room, Supply, fit_of, gpu_need, read_supply

GPU = GpuNeed(resource="nvidia.com/gpu", per_pod=1)


def node(name: str = "a", *, gpus: int = 2, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec,
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pod(
    *,
    gpus: int = 1,
    node: str | None = "a",
    phase: str = "Running",
    labels: dict[str, str] | None = None,
    init: int = 0,
) -> dict[str, Any]:
    def asks(amount: int) -> list[dict[str, Any]]:
        return [{"resources": {"limits": {"nvidia.com/gpu": str(amount)}}}]

    spec: dict[str, Any] = {"containers": asks(gpus), "initContainers": asks(init) if init else []}
    return {
        "metadata": {"name": "p", "labels": labels or {}},
        "spec": spec | ({"nodeName": node} if node else {}),
        "status": {"phase": phase},
    }


def supply(*, nodes: list[Any], pods: list[Any], runtime: dict[str, Any] | None = None) -> Supply:
    return read_supply(nodes=nodes, pods=pods, need=GPU, runtime=runtime or {}, stable_labels={"rev": "1"})


@pytest.mark.parametrize(
    ("nodes", "pods", "runtime", "free"),
    [
        pytest.param([node()], [], None, 2, id="an empty node is free"),
        pytest.param([node()], [pod()], None, 1, id="a running pod holds what it asks for"),
        pytest.param([node()], [pod(phase="Succeeded")], None, 2, id="a finished pod holds nothing"),
        pytest.param([node()], [pod(node=None)], None, 2, id="a pod without a node holds nothing yet"),
        pytest.param([node()], [pod(gpus=0, init=2)], None, 0, id="an init container counts when it asks for more"),
        pytest.param([node(unschedulable=True)], [], None, 0, id="a cordoned node gives nothing"),
        pytest.param([node(taints=[{"key": "gpu", "effect": "NoSchedule"}])], [], None, 0, id="a taint keeps us away"),
        pytest.param(
            [node(taints=[{"key": "gpu", "effect": "NoSchedule"}])],
            [],
            {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
            2,
            id="a tolerated taint does not",
        ),
        pytest.param(
            [node(), node("b", labels={"zone": "x"})],
            [],
            {"nodeSelector": {"zone": "x"}},
            2,
            id="nodeSelector leaves one node",
        ),
    ],
)
def test_free_gpus(nodes: list[Any], pods: list[Any], runtime: dict[str, Any] | None, free: int) -> None:
    assert supply(nodes=nodes, pods=pods, runtime=runtime).free == free


def test_what_stable_holds_is_known() -> None:
    found = supply(nodes=[node(gpus=1)], pods=[pod(labels={"rev": "1"})])
    assert (found.pods_now(GPU), found.pods_after_stable(GPU)) == (0, 1)


def test_what_the_version_before_holds_is_known() -> None:
    found = read_supply(
        nodes=[node()],
        pods=[pod(labels={"rev": "1"}), pod(labels={"rev": "0"})],
        need=GPU,
        runtime={},
        stable_labels={"rev": "1"},
        previous_labels={"rev": "0"},
    )
    assert (found.pods_now(GPU), found.pods_after_previous(GPU), found.pods_after_stable(GPU)) == (0, 1, 2)


def room(*, total: int, free: int, stable: int = 0, previous: int = 0) -> Room:
    return Room(node="a", total=total, free=free, stable=stable, previous=previous, memory_mib=None)


def test_a_claim_of_one_node_leaves_the_node_where_our_version_runs() -> None:
    away = Room(node="b", total=4, free=4, stable=0, previous=0, memory_mib=None)
    left = Supply(rooms=(room(total=2, free=1, stable=1), away)).on_one_node()
    assert (left.rooms[0].node, left.pods_now(GPU), left.out_of_reach) == ("a", 1, 4)


def test_before_anything_runs_the_freest_node_takes_a_claim_of_one_node() -> None:
    away = Room(node="b", total=4, free=3, stable=0, previous=0, memory_mib=None)
    left = Supply(rooms=(room(total=2, free=2), away)).on_one_node()
    assert (left.rooms[0].node, left.out_of_reach) == ("b", 2)


@pytest.mark.parametrize(
    ("rooms", "has_stable", "fit"),
    [
        pytest.param([room(total=3, free=1, stable=1, previous=1)], True, Fit.SURGE, id="room beside both"),
        pytest.param(
            [room(total=2, free=0, stable=1, previous=1)], True, Fit.AFTER_PREVIOUS, id="the warm version goes first"
        ),
        pytest.param([room(total=2, free=0, stable=1)], True, Fit.AFTER_STABLE, id="it holds nothing any more"),
        pytest.param([room(total=2, free=0, stable=1)], False, Fit.BUSY, id="a strategy that keeps both has no room"),
    ],
)
def test_fit_beside_a_version_that_is_kept_warm(rooms: list[Room], has_stable: bool, fit: Fit) -> None:
    supply = Supply(rooms=tuple(rooms))
    assert fit_of(supply, need=GPU, replicas=1, has_stable=has_stable, has_previous=True) is fit


def test_where_supply_is_unknown_a_warm_version_goes_first() -> None:
    assert fit_of(None, need=GPU, replicas=1, has_stable=True, has_previous=True) is Fit.AFTER_PREVIOUS
    assert fit_of(None, need=None, replicas=1, has_stable=True, has_previous=True) is Fit.SURGE


@pytest.mark.parametrize(
    ("rooms", "per_pod", "replicas", "has_stable", "fit"),
    [
        pytest.param(
            [room(total=2, free=1, stable=1)],
            1,
            1,
            True,
            Fit.SURGE,
            id="a free GPU lets the new version start beside the old",
        ),
        pytest.param([room(total=1, free=0, stable=1)], 1, 1, True, Fit.AFTER_STABLE, id="the only GPU is handed over"),
        pytest.param([room(total=1, free=0)], 1, 1, False, Fit.BUSY, id="others hold the only GPU"),
        pytest.param([room(total=1, free=1)], 2, 1, False, Fit.NEVER, id="more GPUs than exist"),
        pytest.param(
            [room(total=1, free=1), room(total=1, free=1)],
            2,
            1,
            False,
            Fit.NEVER,
            id="two nodes with one GPU hold no pod with two",
        ),
        pytest.param(
            [room(total=4, free=2, stable=2)],
            1,
            3,
            True,
            Fit.AFTER_STABLE,
            id="not all replicas fit beside the old ones",
        ),
    ],
)
def test_fit(rooms: list[Room], per_pod: int, replicas: int, has_stable: bool, fit: Fit) -> None:
    need = GpuNeed(resource="nvidia.com/gpu", per_pod=per_pod)
    assert fit_of(Supply(rooms=tuple(rooms)), need=need, replicas=replicas, has_stable=has_stable) is fit


def test_unknown_supply_and_no_need_read_as_room() -> None:
    assert fit_of(None, need=GPU, replicas=9, has_stable=False) is Fit.SURGE
    assert fit_of(Supply(rooms=()), need=None, replicas=9, has_stable=False) is Fit.SURGE


@pytest.mark.parametrize(
    ("resources", "need"),
    [
        pytest.param({}, None, id="no resources"),
        pytest.param({"limits": {"memory": "1Gi", "hugepages-2Mi": "4Mi"}}, None, id="memory is no device"),
        pytest.param({"limits": {"nvidia.com/gpu": 2}}, GpuNeed("nvidia.com/gpu", 2), id="a GPU limit"),
        pytest.param({"requests": {"amd.com/gpu": "1"}}, GpuNeed("amd.com/gpu", 1), id="a request of another vendor"),
        pytest.param({"limits": {"nvidia.com/gpu": 0}}, None, id="zero is none"),
    ],
)
def test_need(resources: dict[str, Any], need: GpuNeed | None) -> None:
    assert gpu_need(resources) == need

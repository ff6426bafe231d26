"""The cache: newer wins, namesakes of another life are kept apart, a full list removes ghosts."""

from typing import Any

import pytest

from lora_operator.api.kinds import ENDPOINT_SLICE, JOB, LORA_DEPLOYMENT, POD, Kind
from lora_operator.runtime.cache import Cache


def obj(name: str, *, version: int, uid: str = "u", owner: str | None = None) -> dict[str, Any]:
    references = [{"uid": owner, "controller": True}] if owner else []
    return {
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "ownerReferences": references,
        }
    }


def test_an_older_event_after_our_own_write_is_ignored() -> None:
    cache = Cache()
    assert cache.put(JOB, obj("a", version=5))
    assert not cache.put(JOB, obj("a", version=4))
    assert not cache.put(JOB, obj("a", version=5))
    found = cache.get(JOB, namespace="ns", name="a")
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "5"


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache()
    cache.put(JOB, obj("a", version=9))
    assert cache.put(JOB, obj("a", version=10))


def test_a_namesake_of_another_life_replaces_whatever_its_version() -> None:
    cache = Cache()
    cache.put(JOB, obj("a", version=9, uid="first"))
    assert cache.put(JOB, obj("a", version=3, uid="second"))


def test_the_deletion_of_the_first_life_does_not_remove_the_second() -> None:
    cache = Cache()
    cache.put(JOB, obj("a", version=9, uid="second"))
    cache.remove(JOB, obj("a", version=8, uid="first"))
    assert cache.get(JOB, namespace="ns", name="a") is not None


def test_children_are_found_by_the_uid_of_their_controller() -> None:
    cache = Cache()
    cache.put(POD, obj("b", version=1, uid="1", owner="job"))
    cache.put(POD, obj("a", version=2, uid="2", owner="job"))
    cache.put(POD, obj("c", version=3, uid="3", owner="other"))
    assert [child["metadata"]["name"] for child in cache.children(POD, owner_uid="job")] == ["a", "b"]
    cache.put(POD, obj("a", version=4, uid="2", owner="other"))
    assert [child["metadata"]["name"] for child in cache.children(POD, owner_uid="job")] == ["b"]


def test_pods_are_found_by_the_deployment_that_their_label_names() -> None:
    cache = Cache()
    pod = obj("a", version=1, uid="1", owner="replicaset")
    cache.put(POD, pod)
    assert cache.naming(POD, namespace="ns", name="d") == []
    labelled = {
        **pod,
        "metadata": {**pod["metadata"], "resourceVersion": "2", "labels": {"loraops.dev/deployment": "d"}},
    }
    cache.put(POD, labelled)
    assert cache.naming(POD, namespace="ns", name="d") == [labelled]
    assert cache.naming(POD, namespace="other", name="d") == []
    cache.remove(POD, labelled)
    assert cache.naming(POD, namespace="ns", name="d") == []


def test_deployments_are_found_by_the_adapter_that_they_name_now() -> None:
    cache = Cache()
    for version, adapter in enumerate(("v1", "v2")):
        cache.put(LORA_DEPLOYMENT, {**obj("d", version=version), "spec": {"adapterRef": {"name": adapter}}})
    assert cache.naming(LORA_DEPLOYMENT, namespace="ns", name="v1") == []
    [found] = cache.naming(LORA_DEPLOYMENT, namespace="ns", name="v2")
    assert found["spec"]["adapterRef"]["name"] == "v2"


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        pytest.param(POD, {"metadata", "status"}, id="where a pod is and what it runs is nothing we ask for"),
        pytest.param(ENDPOINT_SLICE, {"metadata"}, id="a slice wakes its owner, and no more"),
        pytest.param(JOB, {"metadata", "spec", "status"}, id="a Job is kept whole"),
    ],
)
def test_what_no_decision_reads_is_not_kept(kind: Kind, kept: set[str]) -> None:
    told = obj("a", version=1)
    told["metadata"]["managedFields"] = [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]
    told |= {"endpoints": [], "ports": []} if kind is ENDPOINT_SLICE else {"spec": {}, "status": {}}
    cache = Cache()
    assert cache.put(kind, told)
    [found] = cache.all(kind)
    assert set(found) == kept
    assert set(told["metadata"]) - set(found["metadata"]) == {"managedFields"}


def test_a_full_list_removes_ghosts_and_tells_what_changed() -> None:
    cache = Cache()
    cache.put(JOB, obj("ghost", version=1, uid="g"))
    cache.put(JOB, obj("same", version=2, uid="s"))
    changed = cache.replace(JOB, [obj("same", version=2, uid="s"), obj("new", version=3, uid="n")])
    assert sorted(item["metadata"]["name"] for item in changed) == ["ghost", "new"]
    assert [item["metadata"]["name"] for item in cache.all(JOB)] == ["new", "same"]

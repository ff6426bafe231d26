"""Pods of a ReadWriteOnce claim follow each other to its node; other pods are left alone."""

from typing import Any

import pytest

from lora_operator.core.build.single_node import is_single_node, on_claims_node

Json = dict[str, Any]
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        pytest.param(["ReadWriteOnce"], True, id="ReadWriteOnce is attached to one node"),
        pytest.param(["ReadWriteMany"], False, id="ReadWriteMany is shared"),
        pytest.param(["ReadWriteOnce", "ReadWriteMany"], False, id="the wider mode of two counts"),
        pytest.param(["ReadOnlyMany"], False, id="ReadOnlyMany is shared by readers"),
        pytest.param([], False, id="a claim that does not say is left to the scheduler"),
    ],
)
def test_which_claims_bind_to_one_node(modes: list[str], *, expected: bool) -> None:
    assert is_single_node(modes) is expected


def terms(template: Json) -> list[Json]:
    return list(template["spec"]["affinity"]["podAffinity"][REQUIRED])


def test_a_pod_matches_its_own_affinity_so_that_the_first_one_can_start() -> None:
    bound = on_claims_node({"metadata": {"labels": {"a": "b"}}, "spec": {}}, claims=["models", "store"])
    keys = {term["labelSelector"]["matchExpressions"][0]["key"] for term in terms(bound)}
    assert len(keys) == 2
    assert keys < bound["metadata"]["labels"].keys()
    assert bound["metadata"]["labels"]["a"] == "b"


def test_what_the_user_says_of_affinity_still_holds() -> None:
    own = {"labelSelector": {"matchLabels": {"x": "y"}}, "topologyKey": "zone"}
    spec = {"affinity": {"nodeAffinity": {"n": 1}, "podAffinity": {REQUIRED: [own]}}}
    bound = on_claims_node({"metadata": {}, "spec": spec}, claims=["models"])
    assert bound["spec"]["affinity"]["nodeAffinity"] == {"n": 1}
    assert terms(bound)[0] == own
    assert len(terms(bound)) == 2


def test_a_shared_claim_changes_nothing() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}
    assert on_claims_node(template, claims=[]) == template

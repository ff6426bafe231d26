"""BlueGreen and Canary on the real cluster under an open-loop load: no request is lost, no stream breaks, and the operator is
killed in the middle of each.
"""

import json
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import Wait, read
from tests.e2e.simulated import EVERY, ask, at, deployment, host, kill_operator, no_request_was_lost, serves
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

Json = dict[str, Any]


@pytest.fixture
def namespace(shop: str) -> str:
    """Every test of this module works in the same one."""
    return shop


def test_blue_green_switches_and_comes_back_without_losing_a_request(
    cluster: Cluster, namespace: str, wait: Wait
) -> None:
    strategy = {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 3, "keepPreviousSeconds": 300}}
    cluster.apply(deployment(namespace, "bg", answer="v1", strategy=strategy))
    first = wait("loradeployment", "bg", serves(), seconds=90)["status"]["stable"]["revision"]
    with Traffic(url=cluster.gateway_url, host=host("bg"), model="sim", every=EVERY) as traffic:
        cluster.apply(deployment(namespace, "bg", answer="v2", strategy=strategy))
        wait("loradeployment", "bg", at("Preparing", sub="Delay"), seconds=90)
        assert set(traffic.seen.answers) == {"v1"}, "no request before the switch"
        kill_operator(cluster)
        switched = wait("loradeployment", "bg", serves(first), seconds=90)
        assert switched["status"]["previous"]["revision"] == first
        wait("loradeployment", "bg", lambda _: traffic.only("v2"), seconds=20)
        cluster.apply(deployment(namespace, "bg", answer="v1", strategy=strategy))
        back = wait("loradeployment", "bg", serves(switched["status"]["stable"]["revision"]), seconds=20)
        assert back["status"]["stable"]["revision"] == first
        wait("loradeployment", "bg", lambda _: traffic.only("v1"), seconds=20)
    no_request_was_lost(traffic)
    assert [entry["strategy"] for entry in back["status"]["history"]] == ["BlueGreen"] * 3
    cluster.kubectl("delete", "loradeployment", "bg", "-n", namespace)


def test_a_canary_takes_its_steps_without_losing_a_request(cluster: Cluster, namespace: str, wait: Wait) -> None:
    name = "through-gateway"
    steps = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {"seconds": 3}}]
    strategy = {"type": "Canary", "canary": {"steps": steps}}
    cluster.apply(deployment(namespace, name, answer="v1", strategy=strategy))
    first = wait("loradeployment", name, serves(), seconds=90)["status"]["stable"]["revision"]
    with Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=EVERY) as traffic:
        cluster.apply(deployment(namespace, name, answer="v2", strategy=strategy))
        paused = wait("loradeployment", name, at("Paused", index=1), seconds=90)
        assert paused["status"]["pause"]["reason"] == "AwaitingPromote"
        assert (paused["status"]["candidate"]["weight"], paused["status"]["stable"]["weight"]) == (25, 75)
        before = traffic.seen.answers.copy()
        wait("loradeployment", name, lambda _: (traffic.seen.answers - before).total() >= 60, seconds=30)
        assert 0.15 < traffic.shares(before)["v2"] < 0.35
        kill_operator(cluster)
        ask(cluster, namespace, name, "promote")
        done = wait("loradeployment", name, serves(first), seconds=120)
        wait("loradeployment", name, lambda _: traffic.only("v2"), seconds=20)
        wait("loradeployment", name, lambda found: "previous" not in found["status"], seconds=90)
    no_request_was_lost(traffic)
    assert done["status"]["lastRequests"]["promote"]["result"] == "Accepted"
    cluster.kubectl("delete", "loradeployment", name, "-n", namespace)


def test_a_canary_through_the_plain_service_counts_pods_and_leaves_no_label(
    cluster: Cluster, namespace: str, wait: Wait
) -> None:
    strategy = {"type": "Canary", "canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}
    plain: Json = {"traffic": {"service": {}}}
    cluster.apply(deployment(namespace, "plain", answer="v1", strategy=strategy, **plain))
    first = wait("loradeployment", "plain", serves(), seconds=90)["status"]["stable"]["revision"]
    cluster.apply(deployment(namespace, "plain", answer="v2", strategy=strategy, **plain))
    paused = wait("loradeployment", "plain", at("Paused", index=1), seconds=90)["status"]
    assert (paused["candidate"]["weight"], paused["stable"]["weight"]) == (50, 50)
    service = read(cluster, "service", "plain", namespace=namespace)
    assert service is not None
    assert service["spec"]["selector"] == {"loraops.dev/deployment": "plain", "loraops.dev/in-service": "true"}
    labelled = pods_in_service(cluster, namespace)
    assert sorted(labelled) == sorted([first, paused["candidate"]["revision"]])
    ask(cluster, namespace, "plain", "promote")
    done = wait("loradeployment", "plain", serves(first), seconds=90)["status"]
    service = read(cluster, "service", "plain", namespace=namespace)
    assert service is not None
    assert service["spec"]["selector"]["loraops.dev/revision"] == done["stable"]["revision"]
    wait("loradeployment", "plain", lambda _: pods_in_service(cluster, namespace) == [], seconds=60)
    cluster.kubectl("delete", "loradeployment", "plain", "-n", namespace)


def pods_in_service(cluster: Cluster, namespace: str) -> list[str]:
    """Revisions of the pods that carry the label."""
    text = cluster.kubectl("get", "pods", "-n", namespace, "-l", "loraops.dev/in-service=true", "-o", "json")
    return [pod["metadata"]["labels"]["loraops.dev/revision"] for pod in json.loads(text)["items"]]

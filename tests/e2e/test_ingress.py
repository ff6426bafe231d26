"""Canary through Ingresses with canary annotations under an open-loop load: nothing is lost from the moment the deployment is Ready.

Two at once, because a controller that has much to read is late, and that is when a shift that was taken for done too early loses requests.
"""

from contextlib import ExitStack
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import Wait, read
from tests.e2e.simulated import EVERY, ask, at, deployment, host, kill_operator, no_request_was_lost, serves
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
NAMES = ("ingress-one", "ingress-two")
STEPS = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {"seconds": 3}}]


@pytest.fixture
def namespace(shop: str) -> str:
    """Every test of this module works in the same one."""
    return shop


def canary(namespace: str, name: str, *, answer: str) -> Json:
    traffic = {"traffic": {"ingress": {"className": "nginx", "host": host(name)}}}
    return deployment(
        namespace, name, answer=answer, strategy={"type": "Canary", "canary": {"steps": STEPS}}, **traffic
    )


def test_two_canaries_through_ingresses_lose_no_request(cluster: Cluster, namespace: str, wait: Wait) -> None:
    first: dict[str, str] = {}
    loads: dict[str, Traffic] = {}
    with ExitStack() as running:
        for name in NAMES:
            cluster.apply(canary(namespace, name, answer="v1"))
        for name in NAMES:
            first[name] = wait("loradeployment", name, serves(), seconds=90)["status"]["stable"]["revision"]
            traffic = Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=EVERY)
            loads[name] = running.enter_context(traffic)  # at once: Ready has to mean that requests are answered
        for name in NAMES:
            cluster.apply(canary(namespace, name, answer="v2"))
        for name in NAMES:
            wait("loradeployment", name, at("Paused", index=1), seconds=90)
        for name, traffic in loads.items():
            before = traffic.seen.answers.copy()
            enough = lambda _, seen=traffic.seen, before=before: (seen.answers - before).total() >= 60  # noqa: E731
            wait("loradeployment", name, enough, seconds=30)
            assert 0.15 < traffic.shares(before)["v2"] < 0.35
        kill_operator(cluster)
        for name in NAMES:
            ask(cluster, namespace, name, "promote")
        for name, traffic in loads.items():
            wait("loradeployment", name, serves(first[name]), seconds=120)
            wait("loradeployment", name, lambda _, load=traffic: load.only("v2"), seconds=20)
            wait("loradeployment", name, lambda found: "previous" not in found["status"], seconds=90)
    for name, traffic in loads.items():
        no_request_was_lost(traffic)
        assert read(cluster, "ingress", f"{name}-fence", namespace=namespace) is not None
        cluster.kubectl("delete", "loradeployment", name, "-n", namespace)
        assert read(cluster, "ingress", f"{name}-fence", namespace=namespace) is None

"""ABTest on the real cluster under load: the split, the forced assignment by header and cookie, and both ends; no request is lost."""

from typing import Any

import httpx
import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import Wait, read
from tests.e2e.simulated import EVERY, GATEWAY, ask, at, deployment, host, kill_operator, no_request_was_lost, serves
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
HEADER: Json = {"header": {"name": "x-variant", "value": "b"}}
ALWAYS: Json = {"cookie": {"name": "variant", "value": "always"}}
COOKIE: Json = {"cookie": {"name": "variant", "value": "b.1"}}


@pytest.fixture
def namespace(shop: str) -> str:
    """Every test of this module works in the same one."""
    return shop


def ab_test(match: Json, **members: Any) -> Json:
    said = {"split": {"stable": 70, "candidate": 30}, "successMetrics": ["conversion"], "match": match, **members}
    return {"type": "ABTest", "abTest": said}


def answers(cluster: Cluster, name: str, headers: dict[str, str], *, count: int = 20) -> set[str]:
    """What requests with these headers are answered."""
    body = {"model": "sim", "messages": [{"role": "user", "content": "T+2?"}]}
    found = set()
    for _ in range(count):
        reply = httpx.post(
            f"{cluster.gateway_url}/api/v1/inference",
            headers={"Host": host(name), **headers},
            json=body,
            trust_env=False,
            timeout=30,
        )
        assert reply.status_code == 200, reply.text
        found.add(reply.json()["choices"][0]["message"]["content"])
    return found


@pytest.mark.parametrize(
    ("traffic", "match", "forced", "free"),
    [
        pytest.param("gateway", HEADER, {"x-variant": "b"}, {"x-variant": "c"}, id="Gateway, header"),
        pytest.param(
            "gateway", COOKIE, {"Cookie": "lang=zh; variant=b.1"}, {"Cookie": "variant=bx1"}, id="Gateway, cookie"
        ),
        pytest.param("ingress", HEADER, {"x-variant": "b"}, {"x-variant": "c"}, id="Ingress, header"),
        pytest.param(
            "ingress", ALWAYS, {"Cookie": "lang=zh; variant=always"}, {"Cookie": "variant=b"}, id="Ingress, cookie"
        ),
    ],
)
def test_a_test_by_split_and_match_is_promoted_or_left_without_losing_a_request(
    cluster: Cluster,
    namespace: str,
    wait: Wait,
    traffic: str,
    match: Json,
    forced: dict[str, str],
    free: dict[str, str],
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id.lower().replace(", ", "-")
    kinds = {
        "gateway": {"gateway": {**GATEWAY, "hostnames": [host(name)]}},
        "ingress": {"ingress": {"className": "nginx", "host": host(name)}},
    }
    strategy, route = ab_test(match), {"traffic": kinds[traffic]}
    cluster.apply(deployment(namespace, name, answer="v1", strategy=strategy, **route))
    first = wait("loradeployment", name, serves(), seconds=90)["status"]["stable"]["revision"]
    with Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=EVERY) as load:
        cluster.apply(deployment(namespace, name, answer="v2", strategy=strategy, **route))
        wait("loradeployment", name, at("Testing", sub="Test"), seconds=90)
        before = load.seen.answers.copy()
        assert answers(cluster, name, forced) == {"v2"}
        assert answers(cluster, name, free) == {"v1", "v2"}
        wait("loradeployment", name, lambda _: (load.seen.answers - before).total() >= 60, seconds=30)
        assert 0.18 < load.shares(before)["v2"] < 0.42
        if match == HEADER:
            kill_operator(cluster)
            ask(cluster, namespace, name, "promote")
            wait("loradeployment", name, serves(first), seconds=120)
        else:
            ask(cluster, namespace, name, "abort")
            wait("loradeployment", name, at("Aborted"), seconds=120)
        winner = "v2" if match == HEADER else "v1"
        wait("loradeployment", name, lambda _: load.only(winner), seconds=20)
        assert answers(cluster, name, forced) == {winner}, "no header rule is left"
    no_request_was_lost(load)
    cluster.kubectl("delete", "loradeployment", name, "-n", namespace)


def test_a_test_that_is_over_goes_back_to_stable(cluster: Cluster, namespace: str, wait: Wait) -> None:
    strategy = ab_test(HEADER, durationSeconds=5)
    cluster.apply(deployment(namespace, "over", answer="v1", strategy=strategy, replicas=1))
    wait("loradeployment", "over", serves(), seconds=90)
    cluster.apply(deployment(namespace, "over", answer="v2", strategy=strategy, replicas=1))
    wait("loradeployment", "over", at("Testing", sub="Test"), seconds=90)
    ended = wait("loradeployment", "over", at("Aborted"), seconds=90)["status"]
    assert ended["abort"]["reason"] == "StableWon"
    assert ended["stable"]["weight"] == 100
    route = read(cluster, "httproute", "over", namespace=namespace)
    assert route is not None
    assert [rule for rule in route["spec"]["rules"] if "headers" in rule["matches"][0]] == []
    cluster.kubectl("delete", "loradeployment", "over", "-n", namespace)

"""ABTest on the real cluster under load: the split, the forced assignment by header and cookie, and both ends; no request is lost."""

from contextlib import ExitStack
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Case:
    """One way of forced assignment, and how the test ends."""

    traffic: str
    match: Json
    forced: dict[str, str]
    free: dict[str, str]
    winner: str


CASES = {
    "gateway-header": Case("gateway", HEADER, {"x-variant": "b"}, {"x-variant": "c"}, "v2"),
    "gateway-cookie": Case("gateway", COOKIE, {"Cookie": "lang=zh; variant=b.1"}, {"Cookie": "variant=bx1"}, "v1"),
    "ingress-header": Case("ingress", HEADER, {"x-variant": "b"}, {"x-variant": "c"}, "v1"),
    "ingress-cookie": Case("ingress", ALWAYS, {"Cookie": "lang=zh; variant=always"}, {"Cookie": "variant=b"}, "v2"),
}


def declared(namespace: str, name: str, *, answer: str) -> Json:
    kinds = {
        "gateway": {"gateway": {**GATEWAY, "hostnames": [host(name)]}},
        "ingress": {"ingress": {"className": "nginx", "host": host(name)}},
    }
    case = CASES[name]
    return deployment(
        namespace, name, answer=answer, strategy=ab_test(case.match), replicas=1, traffic=kinds[case.traffic]
    )


def test_tests_by_split_and_match_are_promoted_or_left_without_losing_a_request(
    cluster: Cluster, namespace: str, wait: Wait
) -> None:
    """All four at once: by header and by cookie, through the Gateway and through Ingresses; the operator is killed in the middle."""
    first: dict[str, str] = {}
    loads: dict[str, Traffic] = {}
    with ExitStack() as running:
        for name in CASES:
            cluster.apply(declared(namespace, name, answer="v1"))
        for name in CASES:
            first[name] = wait("loradeployment", name, serves(), seconds=120)["status"]["stable"]["revision"]
            load = Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=EVERY)
            loads[name] = running.enter_context(load)
        for name in CASES:
            cluster.apply(declared(namespace, name, answer="v2"))
        for name, case in CASES.items():
            wait("loradeployment", name, at("Testing", sub="Test"), seconds=120)
            before = loads[name].seen.answers.copy()
            assert answers(cluster, name, case.forced) == {"v2"}
            assert answers(cluster, name, case.free) == {"v1", "v2"}
            enough = lambda _, seen=loads[name].seen, before=before: (seen.answers - before).total() >= 60  # noqa: E731
            wait("loradeployment", name, enough, seconds=30)
            assert 0.18 < loads[name].shares(before)["v2"] < 0.42
        kill_operator(cluster)
        for name, case in CASES.items():
            ask(cluster, namespace, name, "promote" if case.winner == "v2" else "abort")
        for name, case in CASES.items():
            ended = serves(first[name]) if case.winner == "v2" else at("Aborted")
            wait("loradeployment", name, ended, seconds=120)
            wait("loradeployment", name, lambda _, name=name, case=case: loads[name].only(case.winner), seconds=20)
            assert answers(cluster, name, case.forced) == {case.winner}, "no header rule is left"
    for name, load in loads.items():
        no_request_was_lost(load)
        cluster.kubectl("delete", "loradeployment", name, "-n", namespace, "--wait=false")


def test_another_match_moves_no_weight_and_a_test_that_is_over_goes_back_t11_t15(
    cluster: Cluster, namespace: str, wait: Wait
) -> None:
    def declare(answer: str, value: str) -> None:
        strategy = ab_test({"header": {"name": "x-variant", "value": value}}, durationSeconds=10)
        cluster.apply(deployment(namespace, "over", answer=answer, strategy=strategy, replicas=1))

    declare("v1", "b")
    wait("loradeployment", "over", serves(), seconds=90)
    declare("v2", "b")
    wait("loradeployment", "over", at("Testing", sub="Test"), seconds=90)
    before = weights(cluster, namespace, "over")
    declare("v2", "c")
    wait("httproute", "over", lambda route: forced_by(route) == {"c"}, seconds=20)
    assert weights(cluster, namespace, "over") == before == [30, 70]
    ended = wait("loradeployment", "over", at("Aborted"), seconds=90)["status"]
    assert (ended["abort"]["reason"], ended["stable"]["weight"]) == ("StableWon", 100)
    route = read(cluster, "httproute", "over", namespace=namespace)
    assert route is not None
    assert forced_by(route) == set()
    cluster.kubectl("delete", "loradeployment", "over", "-n", namespace, "--wait=false")


def forced_by(route: Json) -> set[str]:
    """Header values that have rules of their own."""
    matches = (match for rule in route["spec"]["rules"] for match in rule["matches"])
    return {header["value"] for match in matches for header in match.get("headers", [])}


def weights(cluster: Cluster, namespace: str, name: str) -> list[int]:
    """Of the rules that look at no header."""
    route = read(cluster, "httproute", name, namespace=namespace)
    assert route is not None
    plain = [rule for rule in route["spec"]["rules"] if "headers" not in rule["matches"][0]]
    return sorted(ref["weight"] for ref in plain[0]["backendRefs"])

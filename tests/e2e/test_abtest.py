"""A/B tests on the real cluster under load: the split, forced assignment by header and cookie, a winner by what is sold; nothing is lost.

All at once, through the Gateway and through Ingresses, because Traefik applies one change in two seconds: with several rollouts it is late,
and that is when a shift that was taken for done too early loses requests. The operator is killed in the middle.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import Wait, read
from tests.e2e.simulated import EVERY, GATEWAY, at, deployment, host, kill_operator, no_request_was_lost, serves
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
HEADER: Json = {"header": {"name": "x-variant", "value": "b"}}
ALWAYS: Json = {"cookie": {"name": "variant", "value": "always"}}
COOKIE: Json = {"cookie": {"name": "variant", "value": "b.1"}}
# Answers as a Prometheus would: the candidates of `wins-…` sell more than stable, all others less.
SALES = """
import json, urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer

class Prometheus(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["query"][0]
        better = 0.14 if "wins-" in asked else 0.06
        found = {"candidate": better, "stable": 0.1}.get(asked.split()[0])
        result = [] if found is None else [{"metric": {}, "value": [0, str(found)]}]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("", 9090), Prometheus).serve_forever()
"""


@pytest.fixture
def namespace(shop: str) -> str:
    """Every test of this module works in the same one."""
    return shop


@dataclass(frozen=True)
class Case:
    """One way of forced assignment: requests that are, requests that are not, and who has to win."""

    traffic: str
    match: Json
    forced: dict[str, str]
    free: dict[str, str]
    winner: str


CASES = {
    "wins-by-header": Case("gateway", HEADER, {"x-variant": "b"}, {"x-variant": "c"}, "v2"),
    "by-cookie": Case("gateway", COOKIE, {"Cookie": "lang=zh; variant=b.1"}, {"Cookie": "variant=bx1"}, "v1"),
    "ingress-by-header": Case("ingress", HEADER, {"x-variant": "b"}, {"x-variant": "c"}, "v1"),
    "wins-ingress-by-cookie": Case(
        "ingress", ALWAYS, {"Cookie": "lang=zh; variant=always"}, {"Cookie": "variant=b"}, "v2"
    ),
}


def declared(namespace: str, name: str, *, answer: str) -> Json:
    case = CASES[name]
    kinds = {
        "gateway": {"gateway": {**GATEWAY, "hostnames": [host(name)]}},
        "ingress": {"ingress": {"className": "nginx", "host": host(name)}},
    }
    test = {"split": {"stable": 70, "candidate": 30}, "successMetrics": ["sales"], "match": case.match}
    sales = {"name": "sales", "query": "{{variant}} {{service}}", "direction": "HigherIsBetter"}
    source = {"prometheus": {"address": f"http://sales.{namespace}:9090"}}
    return deployment(
        namespace,
        name,
        answer=answer,
        strategy={"type": "ABTest", "abTest": test},
        replicas=1,
        traffic=kinds[case.traffic],
        analysis={"intervalSeconds": 2, "source": source, "metrics": [sales]},
    )


def open_the_shop(cluster: Cluster, namespace: str) -> None:
    """From now on there are figures, and a winner after ten looks."""
    pods = (
        "pods",
        "-n",
        namespace,
        "-l",
        "loraops.dev/revision",
        "-o",
        "jsonpath={.items[0].spec.containers[0].image}",
    )
    image = cluster.kubectl("get", *pods)  # the simulator's has Python
    labels = {"app": "sales"}
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "prometheus",
        "image": image,
        "command": ["python3", "-c", SALES],
        "securityContext": restricted,
    }
    spec = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    metadata = {"name": "sales", "namespace": namespace, "labels": labels}
    service = {"selector": labels, "ports": [{"port": 9090}]}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def answers(cluster: Cluster, name: str, headers: dict[str, str], *, count: int = 20) -> set[str]:
    """What requests with these headers are answered."""
    body = {"model": "sim", "messages": [{"role": "user", "content": "T+2?"}]}
    found = set()
    with httpx.Client(trust_env=False, timeout=30, headers={"Host": host(name), **headers}) as client:
        for _ in range(count):
            reply = client.post(f"{cluster.gateway_url}/api/v1/inference", json=body)
            assert reply.status_code == 200, reply.text
            found.add(reply.json()["choices"][0]["message"]["content"])
    return found


def splits(cluster: Cluster, name: str, load: Traffic, wait: Wait) -> None:
    """Requests are shared as declared, and those that match reach the candidate alone."""
    case, before = CASES[name], load.seen.answers.copy()
    assert answers(cluster, name, case.forced) == {"v2"}
    assert answers(cluster, name, case.free) == {"v1", "v2"}
    wait("loradeployment", name, lambda _: (load.seen.answers - before).total() >= 60, seconds=30)
    assert 0.18 < load.shares(before)["v2"] < 0.42


def test_tests_by_header_and_cookie_are_won_or_not_and_lose_no_request_t3(
    cluster: Cluster, namespace: str, wait: Wait
) -> None:
    first: dict[str, str] = {}
    loads: dict[str, Traffic] = {}
    with ExitStack() as running:
        for name in CASES:
            cluster.apply(declared(namespace, name, answer="v1"))
        for name in CASES:
            first[name] = wait("loradeployment", name, serves(), seconds=120)["status"]["stable"]["revision"]
            load = Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=EVERY)
            loads[name] = running.enter_context(load)  # at once: Ready has to mean that requests are answered
        for name in CASES:
            cluster.apply(declared(namespace, name, answer="v2"))
        for name in CASES:
            wait("loradeployment", name, at("Testing", sub="Test"), seconds=120)
            splits(cluster, name, loads[name], wait)
            open_the_shop(cluster, namespace)
        kill_operator(cluster)
        for name, case in CASES.items():
            ended = serves(first[name]) if case.winner == "v2" else at("Aborted")
            found = wait("loradeployment", name, ended, seconds=120)["status"]
            assert found["history"][0]["reason"] == ("Promoted" if case.winner == "v2" else "StableWon")
            assert answers(cluster, name, case.forced) == {case.winner}, "no header rule is left"
            wait("loradeployment", name, lambda _, load=loads[name], won=case.winner: load.only(won), seconds=20)
        for name in CASES:  # until the last pod of the version that lost is gone
            wait("loradeployment", name, lambda found: "previous" not in found["status"], seconds=90)
    for load in loads.values():
        no_request_was_lost(load)
    assert sum(load.seen.answers.total() for load in loads.values()) >= 1000
    for name, case in CASES.items():
        if case.traffic == "gateway":
            assert forced_by(read(cluster, "httproute", name, namespace=namespace)) == set()
        cluster.kubectl("delete", "loradeployment", name, "-n", namespace, "--wait=false")


def forced_by(route: Json | None) -> set[str]:
    """Headers that have rules of their own, the fence's not counted."""
    assert route is not None
    matches = (match for rule in route["spec"]["rules"] for match in rule["matches"])
    return {header["name"] for match in matches for header in match.get("headers", [])} - {"x-lora-fence"}

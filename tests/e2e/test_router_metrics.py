"""An analysis that counts at the router: what no pod can count, through Gateway API and through Ingress, on the real cluster."""

from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import Wait
from tests.e2e.simulated import deployment, host, install_with_simulator, serves
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
CANARY = {"type": "Canary", "canary": {"steps": [{"setWeight": 50}, {"analyse": {"seconds": 15}}]}}
ANALYSIS = {
    "intervalSeconds": 5,
    "minCandidateRequests": 50,
    "metrics": [{"name": "error-rate", "builtin": "errorRate"}],
}


@pytest.fixture(scope="module")
def simulated(cluster: Cluster, operator_image: str, job_image: str) -> None:
    """As for other tests, and the operator is told where Traefik's metrics are."""
    url = f"http://{cluster.instance.address}:8082/metrics"
    install_with_simulator(cluster, images={"operator": operator_image, "job": job_image}, metrics_url=url)


@pytest.fixture
def namespace(shop: str) -> str:
    return shop


def traffic_of(name: str, *, ingress: bool) -> Json:
    return {"traffic": {"ingress": {"className": "nginx", "host": host(name), "path": "/"}}} if ingress else {}


def declared(shop: str, name: str, *arguments: str, answer: str, ingress: bool) -> Json:
    more = traffic_of(name, ingress=ingress)
    manifest = deployment(shop, name, answer=answer, strategy=CANARY, replicas=1, analysis=ANALYSIS, **more)
    manifest["spec"]["runtime"]["args"] += arguments
    return manifest


THROUGH_GATEWAY, THROUGH_INGRESS = pytest.param(False, id="gateway"), pytest.param(True, id="ingress")
LATER_THROUGH_GATEWAY = pytest.param(False, id="gateway", marks=pytest.mark.full)
LATER_THROUGH_INGRESS = pytest.param(True, id="ingress", marks=pytest.mark.full)


@pytest.fixture
def started(request: pytest.FixtureRequest, cluster: Cluster, shop: str, wait: Wait) -> Iterator[tuple[str, str, bool]]:
    """v1 serves: its name, its revision, and whether through Ingress."""
    name = "by-ingress" if request.param else "by-gateway"
    cluster.apply(declared(shop, name, answer="v1", ingress=request.param))
    found = wait("loradeployment", name, serves(), seconds=90)
    yield name, found["status"]["stable"]["revision"], request.param
    cluster.kubectl("delete", "loradeployment", name, "-n", shop)


@pytest.mark.parametrize("started", [THROUGH_GATEWAY, LATER_THROUGH_INGRESS], indirect=True)
def test_broken_connections_that_no_pod_counts_give_a_candidate_up(
    cluster: Cluster, shop: str, wait: Wait, started: tuple[str, str, bool]
) -> None:
    name, stable, ingress = started
    with Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=0.05) as traffic:
        cluster.apply(declared(shop, name, "--breaks", "0.2", answer="broken", ingress=ingress))
        found = wait("loradeployment", name, lambda one: one["status"].get("phase") == "Aborted", seconds=120)
        status = found["status"]
        assert (status["stable"]["revision"], status["abort"]["reason"]) == (stable, "AnalysisFailed")
        evidence = status["abort"]["evidence"]
        assert evidence["name"] == "error-rate"
        assert evidence["candidateEvents"] / evidence["candidateRequests"] == pytest.approx(0.2, abs=0.12)
        assert evidence["stableEvents"] == 0
        wait("loradeployment", name, lambda _: traffic.only("v1"), seconds=20)


@pytest.mark.parametrize("started", [LATER_THROUGH_GATEWAY, THROUGH_INGRESS], indirect=True)
def test_a_healthy_candidate_is_promoted_by_the_routers_figures(
    cluster: Cluster, shop: str, wait: Wait, started: tuple[str, str, bool]
) -> None:
    name, stable, ingress = started
    with Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=0.05) as traffic:
        cluster.apply(declared(shop, name, answer="v2", ingress=ingress))
        found = wait("loradeployment", name, serves(stable), seconds=120)
        (metric,) = found["status"]["analysis"]["metrics"]
        assert (metric["stable"], metric["candidate"]) == (0, 0)
        wait("loradeployment", name, lambda _: traffic.only("v2"), seconds=20)
    assert dict(traffic.seen.failures) == {}

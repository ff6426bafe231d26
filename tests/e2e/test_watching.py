"""A canary that is analysed, as the person at a terminal of 80 columns sees it: `loractl status --watch` from the start to the end."""

import re
from collections.abc import Iterator
from contextlib import closing

import pytest

from devcluster.cluster import Cluster
from tests.client.loractl.screen import Screen
from tests.e2e.conftest import Wait
from tests.e2e.simulated import deployment, host, serves
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

NAME = "watched"
CANARY = {"type": "Canary", "canary": {"steps": [{"setWeight": 50}, {"analyse": {"seconds": 8}}]}}
ANALYSIS = {"intervalSeconds": 5, "minCandidateRequests": 50}


@pytest.fixture
def stable(cluster: Cluster, shop: str, wait: Wait) -> Iterator[str]:
    """v1 serves; its revision."""
    cluster.apply(deployment(shop, NAME, answer="v1", strategy=CANARY, replicas=1, analysis=ANALYSIS))
    yield wait("loradeployment", NAME, serves(), seconds=90)["status"]["stable"]["revision"]
    cluster.kubectl("delete", "loradeployment", NAME, "-n", shop)


@pytest.fixture
def namespace(shop: str) -> str:
    return shop


def test_a_watched_canary_shows_weights_step_and_how_the_versions_compare(
    cluster: Cluster, shop: str, stable: str
) -> None:
    with Traffic(url=cluster.gateway_url, host=host(NAME), model="sim", every=0.05):
        cluster.apply(deployment(shop, NAME, answer="v2", strategy=CANARY, replicas=1, analysis=ANALYSIS))
        screen = Screen("status", NAME, "--watch", "-n", shop, kubeconfig=cluster.kubeconfig)
        with closing(screen):
            code = screen.end()
    assert code == 0, screen.text
    shown = screen.text
    for part in ("stable", "candidate"):
        assert re.search(rf"{part} +\S+ +50% +a, 1 of 1 pods ready", shown), f"{part} and its weight"
    assert "step 2 of 2" in shown
    assert "error-rate" in shown
    assert "latency" in shown
    assert "Pass" in shown
    assert f"LoRADeployment {NAME} is Ready: revision" in shown

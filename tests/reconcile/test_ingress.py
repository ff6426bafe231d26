"""Every strategy through Ingresses with canary annotations: order of the objects, weights, healing, names, deletion."""

from collections.abc import Callable
from typing import Any

import pytest

from lora_operator.api.kinds import INGRESS, LORA_DEPLOYMENT
from tests.fakes.cluster import Cluster
from tests.fakes.rollout_driver import NAME, Driver, ask, candidate, point_to, replicas, served, shares, stable, started

Json = dict[str, Any]
TRAFFIC: Json = {"ingress": {"className": "nginx", "host": "fin.example.com"}}
STEPS: Json = {"type": "Canary", "canary": {"steps": [{"setWeight": 25}, {"pause": {}}]}}
ROUTERS: list[Json] = [{"ingressClass": "nginx", "kind": "traefik", "url": "http://traefik:8000"}]
BLUE_GREEN: Json = {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 0, "keepPreviousSeconds": 0}}
PRIMARIES = ["fin", "fin-health", "fin-inference"]
WRITTEN = ["fin", "fin-inference", "fin-health"]
TWINS = ["fin-canary", "fin-health-canary", "fin-inference-canary"]


def serving(strategy: Json | None = None, **traffic: str) -> Driver:
    """v1 serves through Ingresses."""
    ingress = {"ingress": {**TRAFFIC["ingress"], **traffic}}
    return stable(cluster_gpus=8, replicas=2, traffic=ingress, strategy=strategy or {"type": "Replace"})


def fenced(strategy: Json | None = None) -> Driver:
    """… and the settings say where the controller answers."""
    return stable(
        cluster_gpus=8, replicas=2, traffic=TRAFFIC, strategy=strategy or {"type": "Replace"}, routers=ROUTERS
    )


def names(driver: Driver) -> list[str]:
    return [ingress["metadata"]["name"] for ingress in driver.cluster.every(INGRESS)]


def test_the_first_version_is_served_by_three_primaries() -> None:
    driver = serving()
    assert names(driver) == PRIMARIES
    assert driver.status["endpoints"] == ["http://fin.example.com/v1/chat/completions"]
    assert driver.status["stable"]["weight"] == 100


@pytest.mark.parametrize("strategy", [None, BLUE_GREEN], ids=["Replace", "BlueGreen"])
def test_all_requests_move_at_once(strategy: Json | None) -> None:
    driver = serving(strategy)
    driver.run(lambda: point_to(driver, "v2"))
    assert (served(driver), shares(driver), names(driver)) == ("v2", {"v2": 100}, PRIMARIES)


def test_a_canary_has_twins_with_its_weight_on_every_path_t19() -> None:
    driver = serving(STEPS)
    driver.run(lambda: point_to(driver, "v2"))
    assert names(driver) == sorted(PRIMARIES + TWINS)
    assert len({str(pair) for pair in driver.cluster.ingress_pairs().values()}) == 1
    assert shares(driver) == {"v1": 75, "v2": 25}
    assert (driver.status["stable"]["weight"], driver.status["candidate"]["weight"]) == (75, 25)


def test_at_the_end_primaries_turn_before_the_twins_go_t4() -> None:
    driver = serving(STEPS)
    driver.run(lambda: point_to(driver, "v2"))
    before = len(driver.cluster.writes)
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    order = [write for write in driver.cluster.writes[before:] if "Ingress" in write]
    assert order == [
        *(f"apply Ingress {name}" for name in ("fin", "fin-inference", "fin-health")),
        *(f"delete Ingress {name}" for name in TWINS),
    ]
    assert (served(driver), shares(driver)) == ("v2", {"v2": 100})


def test_an_abort_takes_the_twins_away_t3() -> None:
    driver = serving(STEPS)
    driver.run(lambda: point_to(driver, "v2"))
    driver.run(lambda: ask(driver, "abort", f"{candidate(driver)}/1"))
    assert (names(driver), shares(driver)) == (PRIMARIES, {"v1": 100})


def _reweigh(cluster: Cluster) -> None:
    def change(ingress: Json) -> None:
        ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"] = "90"

    cluster.edit(INGRESS, "fin-inference-canary", change)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda c: c.remove(INGRESS, "fin"), id="the main Ingress is deleted"),
        pytest.param(lambda c: c.remove(INGRESS, "fin-health"), id="another primary is deleted"),
        pytest.param(lambda c: c.remove(INGRESS, "fin-inference-canary"), id="a twin is deleted"),
        pytest.param(_reweigh, id="a weight is edited"),
    ],
)
def test_a_hand_edit_is_healed_t22(harm: Callable[[Cluster], None]) -> None:
    driver = serving(STEPS)
    driver.run(lambda: point_to(driver, "v2"))
    wanted = {i["metadata"]["name"]: i["spec"] for i in driver.cluster.every(INGRESS)}
    driver.run(lambda: harm(driver.cluster))
    assert {i["metadata"]["name"]: i["spec"] for i in driver.cluster.every(INGRESS)} == wanted
    assert shares(driver) == {"v1": 75, "v2": 25}
    assert all(pair == driver.cluster.shares() for pair in driver.cluster.ingress_pairs().values())


@pytest.mark.parametrize("name", ["fin", "fin-inference", "fin-health-canary"])
def test_a_foreign_ingress_under_one_of_our_names_is_never_adopted(name: str) -> None:
    cluster = Cluster()
    backend = {"service": {"name": "theirs-0", "port": {"number": 80}}}
    spec = {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}
    cluster.watch_invariants = False
    cluster.put(INGRESS, {"metadata": {"name": name}, "spec": spec})
    driver = started(cluster, traffic=TRAFFIC)
    for _ in range(30):
        driver.look()
    assert driver.condition("Ready")["reason"] == "NameTaken"
    assert f"Ingress shop/{name}" in driver.condition("Ready")["message"]
    assert cluster.peek(INGRESS, name)["spec"] == spec  # type: ignore[index]


def test_deletion_takes_all_ingresses_before_the_pods() -> None:
    driver = serving(STEPS)
    driver.run(lambda: point_to(driver, "v2"))
    before = len(driver.cluster.writes)
    stamp = "2026-01-01T12:10:00Z"
    driver.run(
        lambda: driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda o: o["metadata"].update(deletionTimestamp=stamp))
    )
    effects = [write for write in driver.cluster.writes[before:] if not write.endswith("status")]
    assert sorted(effects[:-1]) == sorted(f"delete Ingress {name}" for name in PRIMARIES + TWINS)
    assert effects[-1] == "patch LoRADeployment fin finalizers"


def test_changing_to_a_gateway_moves_no_request_to_another_version_and_cleans_up_t11() -> None:
    driver = serving()
    gateway = {"parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}]}
    driver.run(lambda: driver.edit(lambda spec: spec.update(traffic={"gateway": gateway})))
    assert (names(driver), shares(driver)) == ([], {"v1": 100})


def test_a_prefix_is_taken_away_by_one_expression() -> None:
    driver = serving(path="/ai/")
    main = driver.cluster.peek(INGRESS, "fin")
    assert main is not None
    assert main["spec"]["rules"][0]["http"]["paths"][0]["path"] == (
        "/ai(/v1/chat/completions|/v1/completions|/v1/models)$"
    )
    assert main["metadata"]["annotations"]["nginx.ingress.kubernetes.io/rewrite-target"] == "$1"
    assert driver.status["endpoints"] == ["http://fin.example.com/ai/v1/chat/completions"]


def test_a_profile_whose_paths_no_ingress_can_rewrite_is_refused() -> None:
    profile = {"image": "x", "routes": {"/v1/models": "/models"}}
    cluster = Cluster()
    started(cluster, traffic=TRAFFIC)
    driver = Driver(cluster, profiles={"transformers": profile})
    driver.run()
    assert driver.condition("Ready")["reason"] == "Invalid"
    assert "rewrites /v1/models" in driver.condition("Ready")["message"]


def test_the_fence_is_written_behind_all_others_and_leads_to_the_version_that_gains() -> None:
    driver = fenced(STEPS)
    driver.run(lambda: point_to(driver, "v2"))
    assert names(driver) == sorted([*PRIMARIES, *TWINS, "fin-fence"])
    order = [write.split()[-1] for write in driver.cluster.writes if "Ingress" in write]
    assert order == [*WRITTEN, "fin-fence", *(f"{name}-canary" for name in WRITTEN), "fin-fence"]
    fence = driver.cluster.peek(INGRESS, "fin-fence")
    assert fence is not None
    rule = fence["spec"]["rules"][0]
    assert rule["host"].endswith(".fin.shop.invalid")
    backend = rule["http"]["paths"][0]["backend"]["service"]["name"]
    assert backend == f"fin-{candidate(driver)}"
    assert fence["metadata"]["annotations"]["nginx.ingress.kubernetes.io/rewrite-target"] == "/health"
    assert shares(driver) == {"v1": 75, "v2": 25}


def test_a_fence_that_is_deleted_by_hand_comes_back_and_goes_with_the_resource() -> None:
    driver = fenced()
    driver.run(lambda: driver.cluster.remove(INGRESS, "fin-fence"))
    assert "fin-fence" in names(driver)
    stamp = "2026-01-01T12:10:00Z"
    driver.run(
        lambda: driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda o: o["metadata"].update(deletionTimestamp=stamp))
    )
    assert names(driver) == []


def test_however_short_its_streams_a_candidate_that_is_left_stays_until_every_proxy_knows_t6() -> None:
    driver = stable(cluster_gpus=8, replicas=2, traffic=TRAFFIC, strategy=STEPS)
    driver.cluster.watch_invariants = False  # it asks for the default of 60 s
    driver.edit(lambda spec: spec["runtime"].update(drainSeconds=0))
    driver.run(lambda: point_to(driver, "v2"))
    ask(driver, "abort", f"{candidate(driver)}/1")
    driver.until("Aborting", sub="Drain")
    begun = driver.cluster.now
    while driver.status["phase"] == "Aborting" and replicas(driver)["v2"]:
        driver.look()
    assert (driver.cluster.now - begun).total_seconds() >= 5

"""Strategy ABTest through the real reconcile loop: split, forced assignment, duration, its end, requests, edits; by Gateway and Ingress.

The cluster itself checks T1, T2, T6, T19 and T20 at every write, the driver T25 at every quiet reconcile.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from lora_operator.api.analysis import Variant
from lora_operator.api.kinds import HTTP_ROUTE, INGRESS
from tests.fakes.rollout_driver import CONVERSION, Driver, ask, candidate, point_to, replicas, served, shares, stable
from tests.fakes.telemetry import Load, telemetry_of

Json = dict[str, Any]
PROFILES: Json = {"transformers": {"metricsPath": "/metrics"}}
HEADER: Json = {"header": {"name": "x-variant", "value": "b"}}
COOKIE: Json = {"cookie": {"name": "variant", "value": "b.1"}}
ALWAYS: Json = {"cookie": {"name": "variant", "value": "always"}}
INGRESS_TRAFFIC: Json = {"ingress": {"className": "nginx", "host": "fin.example.com"}}
GATEWAY: Json = {"gateway": {"parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}]}}


def ab_test(**members: Any) -> Json:
    said = {
        "split": {"stable": 70, "candidate": 30},
        "successMetrics": ["conversion"],
        "durationSeconds": 300,
        **members,
    }
    return {"type": "ABTest", "abTest": said}


def serving(
    *, traffic: Json | None = None, spec: Json | None = None, load: Load | None = None, **members: Any
) -> Driver:
    """v1 serves under ABTest, and nothing is counted unless a load is given."""
    more = {"analysis": {**CONVERSION, "intervalSeconds": 10}, "profiles": PROFILES, **(spec or {})}
    driver = stable(cluster_gpus=16, replicas=4, traffic=traffic, strategy=ab_test(**members), **more)
    telemetry_of(driver.cluster).load = load or Load(silent="connection refused")
    driver.cluster.tick(60)
    return driver


def under_test(**members: Any) -> Driver:
    """… v2 was declared and its split is confirmed."""
    driver = serving(**members)
    point_to(driver, "v2")
    driver.until("Testing", sub="Test")
    driver.look()
    return driver


def forced(driver: Driver) -> dict[str, tuple[str, str]]:
    """By adapter."""
    names = {candidate(driver): "v2"} if "candidate" in driver.status else {}
    return {names.get(revision, revision): said for revision, said in driver.cluster.forced().items()}


def reweigh(driver: Driver, **members: Any) -> None:
    driver.edit(lambda spec: spec.update(strategy=ab_test(**members)))


def test_pods_for_the_share_then_the_split_then_the_time() -> None:
    driver = serving()
    point_to(driver, "v2")
    driver.until("Testing", sub="Test")
    begun = driver.cluster.now
    driver.look()
    assert (shares(driver), replicas(driver)) == ({"v1": 70, "v2": 30}, {"v1": 4, "v2": 2})
    assert (driver.status["candidate"]["weight"], driver.status["candidate"]["targetWeight"]) == (30, 30)
    assert driver.status["step"]["message"].startswith("test with split 70:30, until ")
    driver.until("Aborting")
    assert timedelta(seconds=300) <= driver.cluster.now - begun <= timedelta(seconds=303)


def test_a_test_that_measured_nothing_leaves_stable_where_it_is_t15() -> None:
    driver = under_test()
    driver.run()
    assert (served(driver), shares(driver), replicas(driver)) == ("v1", {"v1": 100}, {"v1": 4, "v2": 0})
    assert driver.status["abort"]["reason"] == "StableWon"
    assert "nothing was measured" in driver.status["abort"]["message"]
    assert driver.status["history"][0]["result"] == "RolledBack"


@pytest.mark.parametrize(
    ("traffic", "match", "said"),
    [
        pytest.param(None, HEADER, ("x-variant", "b"), id="Gateway, header"),
        pytest.param(None, COOKIE, ("Cookie", "^(.*; ?)?variant=b\\.1(;.*)?$"), id="Gateway, cookie"),
        pytest.param(INGRESS_TRAFFIC, HEADER, ("x-variant", "b"), id="Ingress, header"),
        pytest.param(INGRESS_TRAFFIC, ALWAYS, ("variant", "always"), id="Ingress, cookie"),
    ],
)
def test_forced_assignment_lasts_as_long_as_the_test_t3(
    traffic: Json | None, match: Json, said: tuple[str, str]
) -> None:
    driver = under_test(traffic=traffic, match=match)
    assert forced(driver) == {"v2": said}
    assert shares(driver) == {"v1": 70, "v2": 30}
    driver.run(lambda: ask(driver, "abort", f"{candidate(driver)}/1"))
    assert (driver.cluster.forced(), shares(driver), served(driver)) == ({}, {"v1": 100}, "v1")


@pytest.mark.parametrize("traffic", [None, INGRESS_TRAFFIC], ids=["Gateway", "Ingress"])
def test_a_promotion_takes_the_header_rule_away_with_the_last_weight(traffic: Json | None) -> None:
    driver = under_test(traffic=traffic, match=HEADER)
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert (driver.cluster.forced(), shares(driver), served(driver)) == ({}, {"v2": 100}, "v2")
    assert (replicas(driver), driver.status["history"][0]["strategy"]) == ({"v1": 0, "v2": 4}, "ABTest")


@pytest.mark.parametrize("traffic", [None, INGRESS_TRAFFIC], ids=["Gateway", "Ingress"])
def test_where_clients_assign_alone_the_candidate_has_all_pods_and_drains_like_any_other(traffic: Json | None) -> None:
    driver = under_test(traffic=traffic, match=HEADER, split={"stable": 100, "candidate": 0})
    assert (shares(driver), replicas(driver)) == ({"v1": 100}, {"v1": 4, "v2": 4})
    assert list(forced(driver)) == ["v2"]
    ask(driver, "abort", f"{candidate(driver)}/1")
    driver.until("Aborting", sub="Drain")
    assert (driver.cluster.forced(), replicas(driver)) == ({}, {"v1": 4, "v2": 4})
    driver.run()
    assert replicas(driver) == {"v1": 4, "v2": 0}


def test_a_candidate_that_only_forced_requests_reach_is_left_when_its_pods_are_gone() -> None:
    driver = under_test(match=HEADER, split={"stable": 100, "candidate": 0})
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    driver.run()
    assert (driver.status["abort"]["reason"], driver.cluster.forced()) == ("CapacityLost", {})


def test_at_its_end_a_test_may_wait_for_a_person() -> None:
    driver = under_test(onEnd="Pause", match=HEADER)
    driver.run()
    assert (driver.status["phase"], driver.status["pause"]["reason"]) == ("Paused", "TestEnded")
    assert driver.condition("Ready")["message"].startswith("stable won: the time is over")
    assert (shares(driver), list(forced(driver))) == ({"v1": 70, "v2": 30}, ["v2"])
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert (served(driver), driver.cluster.forced()) == ("v2", {})


def test_without_automatic_rollback_a_person_decides_against_the_candidate() -> None:
    driver = under_test(spec={"rollback": {"automatic": False}})
    driver.run()
    assert (driver.status["phase"], driver.status["pause"]["reason"]) == ("Paused", "TestEnded")
    driver.run(lambda: ask(driver, "abort", f"{candidate(driver)}/1"))
    assert served(driver) == "v1"


def test_a_pause_stops_the_clock_of_the_test_t13() -> None:
    driver = under_test()
    driver.look(100)
    driver.edit(lambda spec: spec.update(paused=True))
    driver.until("Paused")
    assert shares(driver) == {"v1": 70, "v2": 30}
    driver.look(1000)
    assert driver.status["phase"] == "Paused"
    driver.edit(lambda spec: spec.update(paused=False))
    resumed = driver.cluster.now
    driver.until("Aborting")
    assert timedelta(seconds=190) <= driver.cluster.now - resumed <= timedelta(seconds=205)


def test_another_match_moves_the_header_rule_and_no_weight_t11() -> None:
    driver = under_test(match=HEADER)
    reweigh(driver, match={"header": {"name": "x-group", "value": "2"}})
    driver.look(3)
    assert (driver.status["phase"], shares(driver)) == ("Testing", {"v1": 70, "v2": 30})
    assert forced(driver) == {"v2": ("x-group", "2")}
    reweigh(driver)
    driver.look(3)
    assert (forced(driver), shares(driver)) == ({}, {"v1": 70, "v2": 30})


def test_another_split_is_another_test() -> None:
    driver = under_test()
    driver.look(200)
    reweigh(driver, split={"stable": 50, "candidate": 50})
    driver.run()
    assert (driver.status["pause"]["reason"], shares(driver)) == ("StepsChanged", {"v1": 70, "v2": 30})
    ask(driver, "resume", f"{candidate(driver)}/1")
    driver.until("Testing", sub="Test")
    begun = driver.cluster.now
    driver.look()
    assert shares(driver) == {"v1": 50, "v2": 50}
    driver.until("Aborting")
    assert driver.cluster.now - begun >= timedelta(seconds=300)


def test_a_split_that_is_taken_back_goes_on() -> None:
    driver = under_test()
    reweigh(driver, split={"stable": 50, "candidate": 50})
    driver.run()
    reweigh(driver)
    driver.look(3)
    assert (driver.status["phase"], shares(driver)) == ("Testing", {"v1": 70, "v2": 30})


def test_a_test_may_go_on_as_a_canary_and_a_canary_as_a_test() -> None:
    driver = under_test(match=HEADER)
    steps = [{"setWeight": 20}, {"setWeight": 50}, {"pause": {}}]
    driver.edit(lambda spec: spec["strategy"].update(type="Canary", canary={"steps": steps}))
    driver.run()
    assert driver.status["pause"]["reason"] == "StepsChanged"
    driver.run(lambda: ask(driver, "resume", f"{candidate(driver)}/1"))
    assert (driver.status["pause"]["reason"], shares(driver), forced(driver)) == (
        "AwaitingPromote",
        {"v1": 50, "v2": 50},
        {},
    )
    driver.edit(lambda spec: spec["strategy"].update(type="ABTest"))
    driver.run()
    ask(driver, "resume", f"{candidate(driver)}/2")
    driver.until("Testing", sub="Test")
    driver.look()
    assert (shares(driver), list(forced(driver))) == ({"v1": 70, "v2": 30}, ["v2"])


@pytest.mark.parametrize(
    ("traffic", "match", "words"),
    [
        pytest.param(
            {"service": {}}, None, "spec.strategy.type: found ABTest with spec.traffic.service", id="plain Service"
        ),
        pytest.param(
            INGRESS_TRAFFIC,
            COOKIE,
            "spec.strategy.abTest.match.cookie.value: found 'b.1', expected 'always'",
            id="a cookie's value through an Ingress",
        ),
    ],
)
def test_what_the_traffic_cannot_bring_is_refused_before_a_pod_starts(
    traffic: Json, match: Json | None, words: str
) -> None:
    driver = serving(traffic=traffic, **({"match": match} if match else {}))
    driver.run(lambda: point_to(driver, "v2"))
    ready = driver.condition("Ready")
    assert (ready["reason"], driver.condition("Stalled")["status"]) == ("Invalid", "True")
    assert words in ready["message"]
    assert (served(driver), replicas(driver)) == ("v1", {"v1": 4})


def test_another_traffic_that_knows_no_test_holds_it_until_that_is_taken_back() -> None:
    driver = under_test()
    driver.edit(lambda spec: spec.update(traffic={"service": {}}))
    driver.look(5)
    assert driver.status["pause"]["reason"] == "WeightNotReachable"
    assert "found ABTest with spec.traffic.service" in driver.condition("Ready")["message"]
    driver.edit(lambda spec: spec.update(traffic=GATEWAY))
    driver.until("Testing", sub="Test")
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert served(driver) == "v2"


def _strip(driver: Driver) -> None:
    def change(route: Json) -> None:
        route["spec"]["rules"] = [rule for rule in route["spec"]["rules"] if "headers" not in rule["matches"][0]]

    driver.cluster.edit(HTTP_ROUTE, "fin", change)


def _untwin(driver: Driver) -> None:
    def change(twin: Json) -> None:
        del twin["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-by-header"]

    driver.cluster.edit(INGRESS, "fin-health-canary", change)


@pytest.mark.parametrize(
    ("traffic", "harm"),
    [
        pytest.param(None, _strip, id="rules of a route"),
        pytest.param(INGRESS_TRAFFIC, _untwin, id="a twin's annotation"),
    ],
)
def test_a_header_rule_taken_away_by_hand_is_healed_t22(traffic: Json | None, harm: Callable[[Driver], None]) -> None:
    driver = under_test(traffic=traffic, match=HEADER)
    wanted = [obj["metadata"].get("annotations") for obj in driver.cluster.every(INGRESS)]
    harm(driver)
    driver.look(3)
    assert forced(driver) == {"v2": ("x-variant", "b")}
    assert [obj["metadata"].get("annotations") for obj in driver.cluster.every(INGRESS)] == wanted


def sold(*, stable: float, candidate: float) -> Load:
    """What the query answers at every look."""
    return Load(values={"conversion": {Variant.STABLE: stable, Variant.CANDIDATE: candidate}})


def test_a_candidate_that_sells_more_is_promoted_before_the_time_is_over() -> None:
    driver = under_test(load=sold(stable=0.10, candidate=0.14), durationSeconds=3600)
    begun = driver.cluster.now
    driver.run()
    assert (served(driver), shares(driver), driver.cluster.forced()) == ("v2", {"v2": 100}, {})
    assert driver.cluster.now - begun < timedelta(seconds=3600)
    assert [note.message for note in driver.events.notes if "the candidate won: conversion: better by" in note.message]


def test_a_candidate_that_sells_less_is_left_before_the_time_is_over() -> None:
    driver = under_test(load=sold(stable=0.10, candidate=0.06), durationSeconds=3600)
    begun = driver.cluster.now
    driver.run()
    assert (served(driver), driver.status["abort"]["reason"]) == ("v1", "StableWon")
    assert driver.cluster.now - begun < timedelta(seconds=3600)


def test_a_candidate_that_sells_the_same_has_not_won() -> None:
    driver = under_test(load=sold(stable=0.10, candidate=0.10))
    driver.run()
    assert (served(driver), driver.status["abort"]["reason"]) == ("v1", "StableWon")
    assert (
        "the time is over and the candidate was not shown to be better: conversion" in driver.status["abort"]["message"]
    )


def test_a_winner_waits_for_a_person_where_the_spec_says_so() -> None:
    driver = under_test(load=sold(stable=0.10, candidate=0.14), onEnd="Pause")
    driver.until("Paused")
    assert (driver.status["phase"], driver.status["pause"]["reason"]) == ("Paused", "TestEnded")
    assert driver.condition("Ready")["message"].startswith("the candidate won: conversion")


@pytest.mark.parametrize(
    ("conditions", "load", "name"),
    [
        pytest.param({"maxErrorRate": 0.05}, Load(errors={"v2": 0.3}), "maxErrorRate", id="errors"),
        pytest.param(
            {"maxPerformanceDegradation": 0.2},
            Load(slow={"v2": 1.0}),
            "maxPerformanceDegradation",
            id="time",
        ),
    ],
)
def test_a_rollback_condition_ends_the_test_at_once(conditions: Json, load: Load, name: str) -> None:
    driver = under_test(load=load, rollbackConditions=conditions, durationSeconds=3600, match=HEADER)
    begun = driver.cluster.now
    driver.run()
    assert (served(driver), driver.cluster.forced()) == ("v1", {})
    assert (driver.status["abort"]["reason"], driver.status["abort"]["evidence"]["name"]) == ("AnalysisFailed", name)
    assert driver.cluster.now - begun < timedelta(seconds=600)


def test_errors_below_the_condition_end_nothing() -> None:
    load = Load(errors={"v1": 0.02, "v2": 0.02})
    driver = under_test(load=load, rollbackConditions={"maxErrorRate": 0.05})
    driver.run()
    assert driver.status["abort"]["reason"] == "StableWon"


def test_figures_of_another_split_are_not_of_this_test() -> None:
    driver = under_test(load=sold(stable=0.10, candidate=0.104), durationSeconds=3600)
    driver.look(60)
    looks = driver.status["analysis"]["metrics"][0]["looks"]
    reweigh(driver, split={"stable": 50, "candidate": 50}, durationSeconds=3600)
    driver.look(3)
    ask(driver, "resume", f"{candidate(driver)}/1")
    driver.until("Testing", sub="Test")
    driver.look(25)
    assert driver.status["analysis"]["metrics"][0]["looks"] < looks


def test_requests_that_are_forced_are_no_mismatch_of_the_split() -> None:
    driver = under_test(load=Load(starved={"v2": 3.0}), match=HEADER)
    driver.look(200)
    assert (driver.status["phase"], driver.status["step"]["sub"]) == ("Testing", "Test")


def test_a_split_that_the_router_does_not_keep_pauses() -> None:
    driver = under_test(load=Load(starved={"v2": 0.3}))
    driver.until("Paused")
    assert driver.status["pause"]["reason"] == "SampleRatioMismatch"


def test_a_success_metric_that_is_not_defined_is_named() -> None:
    driver = serving(spec={"analysis": {}})
    driver.run(lambda: point_to(driver, "v2"))
    assert driver.condition("Ready")["reason"] == "UnknownMetric"
    assert "spec.strategy.abTest.successMetrics: found 'conversion'" in driver.condition("Ready")["message"]
    assert replicas(driver) == {"v1": 4}

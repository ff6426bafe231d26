"""Canary and BlueGreen with an analysis, against the simulated cluster and pods that count requests."""

import asyncio
import copy
import json
from typing import Any

import pytest

from lora_operator.api.analysis import Variant
from lora_operator.api.kinds import CONFIG_MAP
from tests.fakes.rollout_driver import NAME, Driver, ask, candidate, point_to, served, shares, stable
from tests.fakes.telemetry import Load, telemetry_of

Json = dict[str, Any]
PROFILES: Json = {"transformers": {"metricsPath": "/metrics"}}
ERRORS: Json = {"name": "error-rate", "builtin": "errorRate"}
LATENCY: Json = {"name": "latency", "builtin": "latencyP95"}
STEPS = [
    {"setWeight": 25},
    {"pause": {"seconds": 20}},
    {"analyse": {"seconds": 120}},
    {"setWeight": 50},
    {"analyse": {"seconds": 60}},
]
BLUE_GREEN: Json = {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 0, "keepPreviousSeconds": 600}}


def canary(*steps: Json) -> Json:
    return {"type": "Canary", "canary": {"steps": list(steps or STEPS)}}


def started(load: Load | None = None, *, profiles: Json | None = None, **spec: Any) -> Driver:
    """v1 serves, v2 was just declared."""
    analysis = {"metrics": [ERRORS, LATENCY], "intervalSeconds": 10, **spec.pop("analysis", {})}
    strategy = spec.pop("strategy", canary())
    driver = stable(
        cluster_gpus=8,
        replicas=2,
        strategy=strategy,
        analysis=analysis,
        profiles=PROFILES if profiles is None else profiles,
        **spec,
    )
    telemetry_of(driver.cluster).load = load or Load()
    driver.cluster.tick(60)  # v1 has answered for a while
    point_to(driver, "v2")
    return driver


def end(driver: Driver, *, seconds: int = 3000) -> None:
    """Until the rollout is over."""
    for _ in range(seconds):
        driver.look()
        status = driver.status
        over = status["phase"] in ("Stable", "Aborted") and "candidate" not in status
        if over or status["phase"] == "Aborted":
            return
    raise AssertionError(f"not over: {driver.status}")


def kept(driver: Driver) -> Json:
    """The stored sums."""
    stored = driver.cluster.peek(CONFIG_MAP, f"{NAME}-analysis")
    assert stored is not None
    return dict(json.loads(stored["data"]["comparison.json"]))


def metric(driver: Driver, name: str) -> Json:
    return next(m for m in driver.status["analysis"]["metrics"] if m["name"] == name)


def test_a_healthy_candidate_is_promoted_and_the_figures_stay_in_status() -> None:
    driver = started(Load(errors={"v1": 0.01, "v2": 0.01}, slow={"v1": 0.04, "v2": 0.04}))
    end(driver)
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")
    assert driver.status["analysis"]["verdict"] == "Pass"
    assert metric(driver, "error-rate")["builtin"] == "errorRate"
    assert metric(driver, "error-rate")["stable"] == pytest.approx(0.01, abs=0.002)
    assert metric(driver, "latency")["stable"] == pytest.approx(0.29, abs=0.01)
    assert driver.condition("AnalysisPassed")["status"] == "True"
    assert [note.reason for note in driver.events.notes if note.reason == "AnalysisPassed"]


@pytest.mark.parametrize(
    ("load", "worse"),
    [
        pytest.param(Load(errors={"v2": 0.05}), "error-rate", id="5 % errors"),
        pytest.param(Load(slow={"v2": 1.0}), "latency", id="3 times as slow"),
        pytest.param(Load(errors={"v1": 0.6, "v2": 0.6}), "breaker", id="more than half fail, as of stable"),
    ],
)
def test_a_worse_candidate_is_rolled_back_with_reason_and_evidence(load: Load, worse: str) -> None:
    driver = started(load)
    end(driver)
    assert (driver.status["phase"], served(driver), shares(driver)) == ("Aborted", "v1", {"v1": 100})
    abort = driver.status["abort"]
    assert (abort["reason"], abort["evidence"]["name"], abort["evidence"]["verdict"]) == (
        "AnalysisFailed",
        worse,
        "Degraded",
    )
    assert abort["evidence"]["candidateRequests"] >= 10
    assert driver.condition("RolledBack")["reason"] == "AnalysisFailed"
    assert driver.condition("AnalysisPassed")["status"] == "False"
    assert driver.status["history"][0]["reason"] == "AnalysisFailed"
    assert [note.type for note in driver.events.notes if note.reason == "AnalysisFailed"] == ["Warning", "Warning"]


def test_from_the_scrape_that_shows_it_to_weight_0_it_takes_two_seconds_at_most() -> None:
    driver = started()
    driver.until("Stepping", sub="Bake")
    telemetry_of(driver.cluster).load = Load(errors={"v2": 1.0})
    breach = driver.cluster.now
    while shares(driver).get("v2"):
        after = asyncio.run(driver.step())
        driver.cluster.tick(1 if after is None else min(after, 1))
    assert (driver.cluster.now - breach).total_seconds() <= 10 + 2


def test_a_retry_begins_with_no_evidence() -> None:
    driver = started(Load(errors={"v2": 0.2}))
    end(driver)
    telemetry_of(driver.cluster).load = Load()
    ask(driver, "retry", f"{driver.status['abort']['revision']}/1")
    driver.look(3)
    assert driver.status["phase"] != "Aborted"
    end(driver)
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


def test_without_automatic_rollback_a_worse_candidate_pauses_until_a_person_decides() -> None:
    driver = started(Load(errors={"v2": 0.2}), rollback={"automatic": False})
    driver.until("Paused")
    assert (driver.status["pause"]["reason"], driver.condition("Ready")["reason"]) == (
        "AnalysisFailed",
        "AnalysisFailed",
    )
    driver.look(60)
    assert shares(driver) == {"v1": 75, "v2": 25}
    ask(driver, "resume", f"{candidate(driver)}/1")
    driver.look(3)
    assert driver.status["lastRequests"]["resume"]["result"].startswith("Ignored: the candidate is worse")
    ask(driver, "promote-full", f"{candidate(driver)}/1")
    end(driver)
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


def test_a_runtime_without_metrics_is_judged_by_the_router_that_the_settings_name() -> None:
    routers = [{"gatewayClass": "traefik", "kind": "traefik", "metricsUrl": "http://traefik.infra:9100/metrics"}]
    driver = started(profiles={}, routers=routers)
    end(driver)
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")
    assert driver.collector.asked is not None
    router = driver.collector.asked.router
    assert router is not None
    assert (router.addresses, router.problem) == (("http://traefik.infra:9100/metrics",), "")
    assert len(router.backends) == 2
    for revision, backend in router.backends.items():
        assert (backend.namespace, backend.route, backend.service) == ("shop", NAME, f"{NAME}-{revision}")


def test_figures_of_another_source_begin_a_comparison_anew() -> None:
    """Somebody names the router in the settings in the middle of a rollout: counters of two sources have no difference."""
    driver = started()
    driver.until("Stepping", sub="Analyse")
    driver.look(60)
    assert kept(driver)["source"] == "pods"
    routers = [{"gatewayClass": "traefik", "kind": "traefik", "metricsUrl": "http://traefik.infra:9100/metrics"}]
    upgraded = Driver(driver.cluster, profiles=PROFILES, routers=routers)
    upgraded.look(30)
    after = kept(upgraded)
    assert after["source"] == "router"
    assert 0 < after["whole"]["candidate"]["requests"] <= 30 * 20 * 0.25
    end(upgraded)
    assert served(upgraded) == "v2"


@pytest.mark.parametrize("how", ["a source that fails", "no source at all"])
def test_t15_t27_without_figures_nothing_is_promoted(how: str) -> None:
    none = how == "no source at all"
    driver = started(Load(silent="" if none else "connection refused"), profiles={} if none else None)
    driver.until("Stepping", sub="Analyse")
    driver.look(400)
    assert shares(driver) == {"v1": 75, "v2": 25}
    assert driver.condition("Ready")["reason"] == ("NoMetricsSource" if none else "InsufficientData")
    assert driver.condition("AnalysisPassed")["status"] == "Unknown"
    telemetry_of(driver.cluster).load = Load()
    if not none:
        end(driver)
        assert served(driver) == "v2"


def test_t27_a_source_that_falls_silent_holds_a_verdict_that_was_good() -> None:
    driver = started()
    driver.until("Stepping", sub="Analyse")
    driver.look(60)
    assert driver.status["analysis"]["verdict"] == "Pass"
    telemetry_of(driver.cluster).load = Load(silent="timeout")
    driver.look(300)
    assert (driver.status["analysis"]["verdict"], shares(driver)) == ("InsufficientData", {"v1": 75, "v2": 25})
    assert "timeout" in driver.condition("Ready")["message"]


@pytest.mark.parametrize(
    ("policy", "phase", "serves"),
    [
        pytest.param("Promote", "Stable", "v2", id="Promote goes on"),
        pytest.param("Pause", "Paused", "v1", id="Pause waits for a person"),
        pytest.param("Wait", "Stepping", "v1", id="Wait goes on waiting"),
    ],
)
def test_too_little_data_ends_as_declared(policy: str, phase: str, serves: str) -> None:
    rules = {"onInsufficientData": policy, "insufficientDataTimeoutSeconds": 200}
    driver = started(Load(rate=0.05), analysis=rules, strategy=canary({"setWeight": 25}, {"analyse": {"seconds": 30}}))
    driver.look(180)
    assert driver.status["phase"] == "Stepping"
    driver.look(200)
    assert (driver.status["phase"], served(driver)) == (phase, serves)


def test_a_pause_for_lack_of_data_ends_by_itself_with_data_by_promote_or_waits_once_more() -> None:
    rules = {"onInsufficientData": "Pause", "insufficientDataTimeoutSeconds": 100}
    for word in ("data", "promote", "resume"):
        driver = started(
            Load(rate=0.05), analysis=rules, strategy=canary({"setWeight": 25}, {"analyse": {"seconds": 30}})
        )
        driver.until("Paused")
        assert driver.status["pause"]["reason"] == "InsufficientData"
        if word == "data":
            telemetry_of(driver.cluster).load = Load()
        else:
            ask(driver, word, f"{candidate(driver)}/1")
            driver.look(3)
        if word == "resume":
            assert (driver.status["phase"], driver.status["step"]["sub"]) == ("Stepping", "Analyse")
            continue
        end(driver)
        assert served(driver) == "v2"


def test_a_starved_canary_pauses_with_the_split_and_goes_on_when_told_that_it_is_fine() -> None:
    driver = started(Load(starved={"v2": 0.2}))
    driver.until("Paused")
    assert driver.status["pause"]["reason"] == "SampleRatioMismatch"
    assert (
        "expected 25 %" in driver.condition("Ready")["message"]
        or "expected 25 %" in driver.status["analysis"]["mismatch"]
    )
    driver.look(30)
    assert driver.status["phase"] == "Paused"
    ask(driver, "resume", f"{candidate(driver)}/1")
    driver.look(3)
    assert driver.status["phase"] == "Stepping"
    telemetry_of(driver.cluster).load = Load()
    driver.look(40)
    assert driver.status["phase"] == "Stepping", "the split of this step was accepted"


def test_a_limit_of_ones_own_rolls_back_though_stable_is_no_better() -> None:
    limited = {"metrics": [{**ERRORS, "max": 0.02, "maxRatioToStable": 5}]}
    driver = started(Load(errors={"v1": 0.08, "v2": 0.08}), analysis=limited)
    end(driver)
    evidence = driver.status["abort"]["evidence"]
    assert (driver.status["phase"], evidence["rule"], evidence["max"]) == ("Aborted", "max", 0.02)


def test_a_degraded_candidate_is_rolled_back_out_of_a_pause_too() -> None:
    driver = started(strategy=canary({"setWeight": 25}, {"pause": {}}))
    driver.until("Paused")
    telemetry_of(driver.cluster).load = Load(errors={"v2": 0.2})
    end(driver)
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "AnalysisFailed")


def test_a_canary_without_steps_takes_the_weight_of_the_settings_and_an_analysis() -> None:
    driver = started(strategy={"type": "Canary"})
    driver.until("Stepping", sub="Analyse")
    assert shares(driver) == {"v1": 95, "v2": 5}
    assert driver.status["effective"]["steps"] == [{"setWeight": 5}, {"analyse": {"seconds": 300}}]
    end(driver)
    assert served(driver) == "v2"


def test_an_analyse_step_without_metrics_compares_errors_and_latency() -> None:
    driver = started(Load(slow={"v2": 1.0}), analysis={"metrics": []})
    end(driver)
    assert (driver.status["phase"], driver.status["abort"]["evidence"]["builtin"]) == ("Aborted", "latencyP95")


def test_blue_green_is_analysed_after_the_switch_and_the_old_version_stays_whole() -> None:
    driver = started(strategy=BLUE_GREEN)
    driver.until("Switching", sub="Analyse")
    assert shares(driver) == {"v2": 100}
    telemetry_of(driver.cluster).load = Load(errors={"v2": 0.2})
    end(driver)
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "AnalysisFailed")
    assert shares(driver) == {"v1": 100}


def test_blue_green_that_is_well_is_promoted_and_the_way_back_runs_no_analysis_t17() -> None:
    driver = started(strategy=BLUE_GREEN)
    driver.until_serves("v2")
    assert driver.status["analysis"]["verdict"] == "Pass"
    telemetry_of(driver.cluster).load = Load(silent="gone", errors={"v1": 0.5})
    point_to(driver, "v1")
    driver.until_serves("v1")
    assert "analysis" not in driver.status


def test_what_a_query_answers_rolls_back() -> None:
    rules = {
        "source": {"prometheus": {"address": "http://prometheus:9090"}},
        "metrics": [{"name": "sales", "query": "sales", "direction": "HigherIsBetter"}],
    }
    load = Load(values={"sales": {Variant.STABLE: 10.0, Variant.CANDIDATE: 5.0}})
    driver = started(load, analysis=rules)
    end(driver)
    assert (driver.status["phase"], driver.status["abort"]["evidence"]["name"]) == ("Aborted", "sales")


def test_one_write_of_the_sums_for_each_scrape_and_none_outside_a_rollout() -> None:
    driver = started()
    driver.until("Stepping", sub="Analyse", index=2)
    before = len(driver.cluster.writes)
    driver.look(60)
    kept = [what for what in driver.cluster.writes[before:] if "ConfigMap" in what]
    assert 5 <= len(kept) <= 7
    end(driver)
    driver.run()
    quiet = len(driver.cluster.writes)
    driver.look(100)
    assert len(driver.cluster.writes) == quiet


def test_sums_that_somebody_spoiled_begin_anew_and_a_foreign_configmap_is_left_alone() -> None:
    driver = started()
    driver.until("Stepping", sub="Analyse", index=2)
    driver.cluster.edit(CONFIG_MAP, f"{NAME}-analysis", lambda obj: obj.update(data={"comparison.json": "{"}))
    driver.look(30)
    assert driver.status["phase"] == "Stepping"
    end(driver)
    assert served(driver) == "v2"

    driver = stable(cluster_gpus=8, strategy=canary(), analysis={"intervalSeconds": 10}, profiles=PROFILES)
    foreign = driver.cluster.put(CONFIG_MAP, {"metadata": {"name": f"{NAME}-analysis"}, "data": {"mine": "yes"}})
    wanted = copy.deepcopy(foreign)
    point_to(driver, "v2")
    driver.look(400)
    assert driver.cluster.peek(CONFIG_MAP, f"{NAME}-analysis") == wanted
    assert "exists and is not ours" in driver.condition("Ready")["message"]
    ask(driver, "abort", f"{candidate(driver)}/1")
    end(driver)
    assert shares(driver) == {"v1": 100}


def test_a_new_process_goes_on_with_the_sums_of_the_old_one() -> None:
    driver = started()
    driver.until("Stepping", sub="Analyse", index=2)
    driver.look(50)
    before = metric(driver, "error-rate")["candidateRequests"]
    driver.restart()
    driver.look(15)
    after = metric(driver, "error-rate")["candidateRequests"]
    assert before < after <= before + 20 * 0.25 * 40


def test_the_first_version_is_not_analysed() -> None:
    driver = stable(cluster_gpus=8, strategy=canary(), analysis={"metrics": [ERRORS]}, profiles=PROFILES)
    assert "analysis" not in driver.status
    assert driver.cluster.peek(CONFIG_MAP, f"{NAME}-analysis") is None

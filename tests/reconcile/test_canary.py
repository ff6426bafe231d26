"""Strategy Canary through the real reconcile loop: steps, pauses, edits, requests, Gateway weights and the plain Service.

The cluster itself checks T1, T2, T6, T19 and T20 at every write, the driver T25 at every quiet reconcile; the tests below
look at the order and at how it ends.
"""

from datetime import timedelta
from typing import Any

import pytest

from lora_operator.api.kinds import HTTP_ROUTE, POD, SERVICE
from lora_operator.api.names import LABEL_IN_SERVICE
from tests.fakes.rollout_driver import NAME, Driver, ask, candidate, point_to, replicas, served, shares, stable

Json = dict[str, Any]
APPROVAL: Json = {"pause": {}}


def weight(percent: int) -> Json:
    return {"setWeight": percent}


def pause(seconds: int) -> Json:
    return {"pause": {"seconds": seconds}}


def canary(*steps: Json) -> Json:
    return {"type": "Canary", "canary": {"steps": list(steps)}}


def serving(*steps: Json, replicas: int = 4, traffic: Json | None = None, **spec: Any) -> Driver:
    """v1 serves under Canary."""
    return stable(cluster_gpus=16, replicas=replicas, traffic=traffic, strategy=canary(*steps), **spec)


def started(*steps: Json, **spec: Any) -> Driver:
    """… and v2 was just declared."""
    driver = serving(*steps, **spec)
    point_to(driver, "v2")
    return driver


def test_the_first_version_takes_no_steps() -> None:
    assert serving(weight(25), APPROVAL).phases == ["Pending", "Preparing", "Promoting", "Stable"]


def test_every_step_in_its_order_and_pods_before_their_weight() -> None:
    driver = started(weight(25), pause(60), weight(50), weight(100))
    driver.until("Preparing")
    driver.look(2)
    assert (replicas(driver), shares(driver)) == ({"v1": 4, "v2": 1}, {"v1": 100})
    driver.until("Stepping", sub="Bake", index=1)
    assert (shares(driver), replicas(driver)) == ({"v1": 75, "v2": 25}, {"v1": 4, "v2": 1})
    assert (driver.status["candidate"]["targetWeight"], driver.status["candidate"]["weight"]) == (25, 25)
    assert driver.status["step"]["of"] == 4
    assert driver.status["step"]["message"].startswith("step 2 of 4: weight 25 is held until ")
    begun = driver.cluster.now
    driver.until("Stepping", sub="Scale", index=2)
    assert timedelta(seconds=60) <= driver.cluster.now - begun <= timedelta(seconds=63)
    driver.until("Stepping", index=3)
    assert (shares(driver), replicas(driver)) == ({"v1": 50, "v2": 50}, {"v1": 4, "v2": 2})
    driver.until("Stepping", index=4)
    assert (shares(driver), replicas(driver)) == ({"v2": 100}, {"v1": 4, "v2": 4})
    driver.run()
    assert (served(driver), shares(driver), replicas(driver)) == ("v2", {"v2": 100}, {"v1": 0, "v2": 4})
    assert driver.phases[4:] == ["Preparing", "Stepping", "Promoting", "Stable"]
    assert [entry["strategy"] for entry in driver.status["history"]] == ["Canary", "Canary"]


def test_at_the_last_step_traffic_stays_with_the_candidate_t4() -> None:
    driver = started(weight(100), APPROVAL)
    driver.run()
    assert shares(driver) == {"v2": 100}
    before = len(driver.cluster.writes)
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert served(driver) == "v2"
    assert not any("HTTPRoute" in write for write in driver.cluster.writes[before:]), (
        "no bounce: the route is as it was"
    )


@pytest.mark.parametrize("verb", ["promote", "promote-full"])
def test_an_approval_is_waited_for_without_a_clock(verb: str) -> None:
    driver = started(weight(25), APPROVAL, weight(50), APPROVAL)
    driver.run()
    assert (driver.status["phase"], driver.status["pause"]["reason"]) == ("Paused", "AwaitingPromote")
    driver.cluster.tick(100 * 86400)
    writes = len(driver.cluster.writes)
    driver.run()
    assert (len(driver.cluster.writes), shares(driver)) == (writes, {"v1": 75, "v2": 25})
    driver.run(lambda: ask(driver, verb, f"{candidate(driver)}/1"))
    if verb == "promote":
        assert (driver.status["phase"], shares(driver)) == ("Paused", {"v1": 50, "v2": 50})
    else:
        assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


def test_a_promote_ends_a_timed_pause() -> None:
    driver = started(weight(25), pause(86400), weight(50), APPROVAL)
    driver.until("Stepping", sub="Bake")
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert (driver.status["phase"], shares(driver)) == ("Paused", {"v1": 50, "v2": 50})


@pytest.mark.parametrize(
    ("on_timeout", "phase", "version"),
    [
        pytest.param({"onTimeout": "Abort"}, "Aborted", "v1", id="Abort"),
        pytest.param({}, "Aborted", "v1", id="abort is the default"),
        pytest.param({"onTimeout": "Promote"}, "Stable", "v2", id="Promote"),
    ],
)
def test_an_approval_that_nobody_gives_expires_as_configured_t23(on_timeout: Json, phase: str, version: str) -> None:
    driver = started(weight(25), {"pause": {"timeoutSeconds": 600, **on_timeout}})
    driver.until("Paused")
    driver.cluster.tick(590)
    driver.look()
    assert driver.status["phase"] == "Paused"
    driver.cluster.tick(20)
    driver.run()
    assert (driver.status["phase"], served(driver)) == (phase, version)
    if phase == "Aborted":
        assert driver.status["abort"]["reason"] == "ApprovalTimedOut"
        assert "nobody asked for promote" in driver.condition("Ready")["message"]


@pytest.mark.parametrize("how", ["spec.paused", "pause request"])
def test_the_clock_of_an_approval_stands_still_while_somebody_pauses_t13(how: str) -> None:
    driver = started(weight(25), {"pause": {"timeoutSeconds": 600}})
    driver.until("Paused")
    driver.cluster.tick(300)
    if how == "spec.paused":
        driver.edit(lambda spec: spec.update(paused=True))
        driver.look(2)
        driver.cluster.tick(3600)
        driver.look(2)
        driver.edit(lambda spec: spec.update(paused=False))
        driver.look(2)
        assert driver.status["pause"]["reason"] == "AwaitingPromote"
        driver.cluster.tick(250)
        driver.look()
        assert driver.status["phase"] == "Paused"
        driver.cluster.tick(60)
        driver.run()
        assert driver.status["abort"]["reason"] == "ApprovalTimedOut"
    else:
        driver.look()
        ask(driver, "pause", f"{candidate(driver)}/1")
        driver.look()
        assert driver.status["lastRequests"]["pause"]["result"] == "Ignored: it is paused already (AwaitingPromote)"


def test_a_pause_request_stops_the_time_of_a_step_and_resume_goes_on_with_what_was_left_t13() -> None:
    driver = started(weight(25), pause(600), weight(50), APPROVAL)
    driver.until("Stepping", sub="Bake")
    driver.cluster.tick(400)
    ask(driver, "pause", f"{candidate(driver)}/1")
    driver.look(2)
    driver.cluster.tick(86400)
    driver.look()
    assert (driver.status["phase"], shares(driver)) == ("Paused", {"v1": 75, "v2": 25})
    ask(driver, "resume", f"{candidate(driver)}/1")
    driver.look(2)
    left = driver.cluster.now
    driver.until("Stepping", index=2)
    assert timedelta(seconds=190) <= driver.cluster.now - left <= timedelta(seconds=205)


def test_a_promote_ends_a_pause_request_too() -> None:
    driver = started(weight(25), pause(60), weight(50), APPROVAL)
    driver.until("Stepping", sub="Bake")
    driver.run(lambda: ask(driver, "pause", f"{candidate(driver)}/1"))
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert shares(driver) == {"v1": 50, "v2": 50}


def test_paused_weights_are_re_asserted() -> None:
    driver = started(weight(25), APPROVAL)
    driver.run()
    driver.cluster.watch_invariants = False

    def harm(route: Json) -> None:
        for rule in route["spec"]["rules"]:
            rule["backendRefs"][0]["weight"], rule["backendRefs"][1]["weight"] = 1, 99

    driver.run(lambda: driver.cluster.edit(HTTP_ROUTE, NAME, harm))
    assert shares(driver) == {"v1": 75, "v2": 25}
    driver.run(lambda: driver.cluster.remove(HTTP_ROUTE, NAME))
    assert shares(driver) == {"v1": 75, "v2": 25}


def test_steps_behind_the_running_one_may_be_edited() -> None:
    driver = started(weight(25), APPROVAL, weight(50))
    driver.run()
    driver.edit(lambda spec: spec["strategy"].update(canary={"steps": [weight(25), APPROVAL, weight(75), APPROVAL]}))
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert (driver.status["phase"], shares(driver)) == ("Paused", {"v1": 25, "v2": 75})
    assert (driver.status["step"]["index"], driver.status["step"]["of"]) == (3, 4)


def test_edited_steps_that_were_taken_pause_and_hold_the_weight() -> None:
    driver = started(weight(25), pause(600), weight(75))
    driver.until("Stepping", sub="Bake")
    driver.edit(lambda spec: spec["strategy"].update(canary={"steps": [weight(10), weight(50), APPROVAL]}))
    driver.run()
    assert (driver.status["phase"], driver.status["pause"]["reason"]) == ("Paused", "StepsChanged")
    assert driver.condition("Ready")["reason"] == "StepsChanged"
    driver.cluster.tick(86400)
    driver.run()
    assert shares(driver) == {"v1": 75, "v2": 25}
    driver.run(lambda: ask(driver, "resume", f"{candidate(driver)}/1"))
    assert (shares(driver), driver.status["step"]["index"]) == ({"v1": 50, "v2": 50}, 2), "not below the present weight"


def test_an_edit_of_taken_steps_that_is_taken_back_goes_on_by_itself() -> None:
    driver = started(weight(25), pause(60), weight(50), APPROVAL)
    driver.until("Stepping", sub="Bake")
    driver.edit(lambda spec: spec["strategy"].update(canary={"steps": [weight(10)]}))
    driver.look(3)
    assert driver.status["pause"]["reason"] == "StepsChanged"
    driver.edit(lambda spec: spec["strategy"].update(canary(weight(25), pause(60), weight(50), APPROVAL)))
    driver.run()
    assert (driver.status["phase"], shares(driver)) == ("Paused", {"v1": 50, "v2": 50})


def test_another_strategy_in_the_middle_of_a_canary_asks_first() -> None:
    driver = started(weight(25), pause(600))
    driver.until("Stepping", sub="Bake")
    driver.edit(lambda spec: spec["strategy"].update(type="Replace"))
    driver.run()
    assert (driver.status["pause"]["reason"], shares(driver)) == ("StepsChanged", {"v1": 75, "v2": 25})
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


def test_steps_appended_while_the_last_pods_start_are_taken() -> None:
    driver = started(weight(25))
    driver.until("Stepping", sub="WaitReady", index=1)
    driver.edit(lambda spec: spec["strategy"].update(canary(weight(25), APPROVAL)))
    driver.run()
    assert (driver.status["phase"], shares(driver)) == ("Paused", {"v1": 75, "v2": 25})


def test_an_analysis_that_appears_in_the_middle_is_never_skipped_t15() -> None:
    driver = started(weight(25), pause(60))
    driver.until("Stepping", sub="Bake")
    driver.edit(lambda spec: spec["strategy"].update(canary(weight(25), pause(60), {"analyse": {"seconds": 60}})))
    driver.until("Stepping", sub="Analyse", index=2)
    driver.look(200)
    assert driver.condition("Ready")["reason"] == "NoMetricsSource"
    driver.cluster.tick(86400)
    driver.look(5)
    assert shares(driver) == {"v1": 75, "v2": 25}


@pytest.mark.parametrize(
    ("index", "sub"),
    [(0, "Scale"), (0, "WaitReady"), (0, "Shift"), (1, "Bake"), (2, "WaitReady"), (3, "Scale"), (3, "WaitReady")],
)
def test_an_abort_in_any_part_gives_everything_back_t3(index: int, sub: str) -> None:
    driver = started(weight(25), pause(60), weight(75))
    driver.until("Stepping", sub=sub, index=index)
    driver.run(lambda: ask(driver, "abort", f"{candidate(driver)}/1"))
    assert (driver.status["phase"], shares(driver), replicas(driver)) == ("Aborted", {"v1": 100}, {"v1": 4, "v2": 0})
    assert driver.status["history"][0]["reason"] == "AbortRequested"


def test_abort_beats_pause_beats_promote_t14() -> None:
    driver = started(weight(25), APPROVAL)
    driver.run()
    revision = candidate(driver)
    for verb in ("promote", "pause", "abort"):
        ask(driver, verb, f"{revision}/1")
    driver.run()
    assert (driver.status["phase"], shares(driver)) == ("Aborted", {"v1": 100})


def test_the_last_pod_of_a_canary_lost_means_back_at_once() -> None:
    driver = started(weight(25), pause(600))
    driver.until("Stepping", sub="Bake")
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    driver.look(3)
    assert shares(driver) == {"v1": 100}
    driver.run()
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "CapacityLost")


def test_the_same_without_automatic_rollback_waits_for_a_person() -> None:
    driver = started(weight(25), pause(600), rollback={"automatic": False})
    driver.until("Stepping", sub="Bake")
    driver.cluster.behaviour = lambda name: "crash" if name == "v2" else "good"
    driver.look(5)
    assert (driver.status["phase"], driver.condition("Stalled")["status"]) == ("Stepping", "True")
    driver.run(lambda: ask(driver, "abort", f"{candidate(driver)}/1"))
    assert shares(driver) == {"v1": 100}


def test_pods_that_do_not_come_for_the_next_weight_end_at_the_deadline() -> None:
    driver = started(weight(25), pause(20), weight(50), progressDeadlineSeconds=300)
    driver.until("Stepping", sub="Bake")
    old = {pod["metadata"]["name"] for pod in driver.cluster.every(POD)}
    driver.cluster.stuck = lambda pod: pod["metadata"]["name"] not in old
    driver.run()
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "ProgressDeadlineExceeded")
    assert (shares(driver), replicas(driver)) == ({"v1": 100}, {"v1": 4, "v2": 0})


def test_a_route_that_is_not_accepted_ends_at_the_deadline() -> None:
    driver = started(weight(25), progressDeadlineSeconds=120)
    driver.until("Stepping", sub="WaitReady")
    driver.cluster.gateway_takes = False
    driver.until("Stepping", sub="Confirm")
    driver.until("Aborting")
    driver.cluster.gateway_takes = True
    driver.run()
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "ProgressDeadlineExceeded")


def test_revision_3_during_2_during_1_ends_with_1_and_3_only_t10() -> None:
    driver = started(weight(25), APPROVAL)
    driver.run()
    point_to(driver, "v3")
    driver.run()
    assert (driver.status["candidate"]["adapter"], shares(driver)) == ("v3", {"v1": 75, "v3": 25})
    assert {name: pods for name, pods in replicas(driver).items() if pods} == {"v1": 4, "v3": 1}
    assert driver.status["history"][0]["result"] == "Superseded"


def test_replica_edits_scale_both_by_their_part_t12() -> None:
    driver = started(weight(25), APPROVAL)
    driver.run()
    driver.edit(lambda spec: spec.update(replicas=8))
    driver.run()
    assert (replicas(driver), shares(driver)) == ({"v1": 8, "v2": 2}, {"v1": 75, "v2": 25})


def test_a_lower_weight_takes_no_pod_away_from_running_streams() -> None:
    driver = started(weight(50), weight(25), APPROVAL)
    driver.run()
    assert (shares(driver), replicas(driver)) == ({"v1": 75, "v2": 25}, {"v1": 4, "v2": 2})


def test_weight_0_after_a_weight_drains_before_an_abort_stops_the_pods_t6() -> None:
    driver = started(weight(25), weight(0), APPROVAL)
    driver.until("Paused")
    assert shares(driver) == {"v1": 100}
    driver.run(lambda: ask(driver, "abort", f"{candidate(driver)}/1"))
    assert replicas(driver) == {"v1": 4, "v2": 0}


def test_gpus_are_counted_for_the_peak() -> None:
    driver = stable(cluster_gpus=6, replicas=4, strategy=canary(weight(25)))
    driver.run(lambda: point_to(driver, "v2"))
    assert driver.condition("Ready")["reason"] == "InsufficientGPU"
    assert "needs 4 pods with 1 nvidia.com/gpu each beside the serving version" in driver.condition("Ready")["message"]
    assert (driver.condition("Stalled")["status"], shares(driver)) == ("True", {"v1": 100})


def test_a_gitops_re_apply_in_a_canary_moves_nothing_t21() -> None:
    driver = started(weight(25), APPROVAL)
    driver.run()
    writes = len(driver.cluster.writes)
    driver.restart()
    driver.run()
    assert len(driver.cluster.writes) == writes


@pytest.mark.parametrize(
    ("verb", "result"),
    [
        pytest.param("resume", "Ignored: it waits for promote", id="resume of an approval"),
        pytest.param("pause", "Ignored: it is paused already (AwaitingPromote)", id="pause of a pause"),
    ],
)
def test_requests_that_mean_nothing_in_an_approval_are_recorded(verb: str, result: str) -> None:
    driver = started(weight(25), APPROVAL)
    driver.run()
    driver.run(lambda: ask(driver, verb, f"{candidate(driver)}/1"))
    assert driver.status["lastRequests"][verb]["result"] == result
    assert shares(driver) == {"v1": 75, "v2": 25}


def test_a_request_about_another_revision_is_recorded_and_does_nothing() -> None:
    driver = started(weight(25), APPROVAL)
    driver.run()
    driver.run(lambda: ask(driver, "promote", "00000000/1"))
    assert driver.status["lastRequests"]["promote"]["result"] == f"Ignored: the candidate is {candidate(driver)}"
    assert driver.status["phase"] == "Paused"


# ---- the plain Service ----------------------------------------------------------------------------------------------
SERVICE_TRAFFIC: Json = {"service": {}}


def in_service(driver: Driver) -> dict[str, int]:
    """Labelled pods by revision's adapter."""
    names: dict[str, int] = {}
    for pod in driver.cluster.every(POD):
        if LABEL_IN_SERVICE in pod["metadata"]["labels"]:
            adapter = pod["metadata"]["annotations"]["adapter"]
            names[adapter] = names.get(adapter, 0) + 1
    return names


def test_the_plain_service_shares_by_numbers_of_pods() -> None:
    driver = started(weight(25), APPROVAL, weight(50), APPROVAL, traffic=SERVICE_TRAFFIC)
    driver.run()
    assert (in_service(driver), shares(driver)) == ({"v1": 3, "v2": 1}, {"v1": 75, "v2": 25})
    assert driver.status["candidate"]["weight"] == 25
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert in_service(driver) == {"v1": 2, "v2": 2}
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/2"))
    assert (served(driver), in_service(driver)) == ("v2", {})
    assert "loraops.dev/revision" in driver.cluster.peek(SERVICE, NAME)["spec"]["selector"]  # type: ignore[index]


def test_stable_pods_are_labelled_before_the_selector_changes_and_candidates_after() -> None:
    driver = started(weight(25), APPROVAL, traffic=SERVICE_TRAFFIC)
    before = len(driver.cluster.writes)
    driver.run()
    writes = [w for w in driver.cluster.writes[before:] if w.startswith(("patch Pod", "apply Service fin"))]
    switch = writes.index("apply Service fin")
    stable_pods = [w for w in writes[:switch] if f"fin-{driver.status['stable']['revision']}" in w]
    assert len(stable_pods) == 4
    assert f"fin-{candidate(driver)}" in writes[switch + 1]


def test_a_pod_that_replaces_a_lost_one_joins_the_service() -> None:
    driver = started(weight(25), APPROVAL, traffic=SERVICE_TRAFFIC)
    driver.run()
    lost = next(
        pod["metadata"]["name"]
        for pod in driver.cluster.every(POD)
        if pod["metadata"]["annotations"]["adapter"] == "v1" and LABEL_IN_SERVICE in pod["metadata"]["labels"]
    )
    driver.cluster.remove(POD, lost)
    for _ in range(6):
        driver.look()
    assert in_service(driver) == {"v1": 3, "v2": 1}


def test_a_lost_candidate_pod_costs_no_capacity_t2() -> None:
    driver = started(weight(50), APPROVAL, traffic=SERVICE_TRAFFIC)
    driver.run()
    name = next(p["metadata"]["name"] for p in driver.cluster.every(POD) if candidate(driver) in p["metadata"]["name"])
    driver.cluster.stuck = lambda pod: pod["metadata"]["name"] == name
    driver.look(4)
    ready = [
        pod
        for pod in driver.cluster.every(POD)
        if LABEL_IN_SERVICE in pod["metadata"]["labels"] and pod["metadata"]["name"] != name
    ]
    assert len(ready) == 4


@pytest.mark.parametrize("traffic", [None, SERVICE_TRAFFIC], ids=["Gateway", "plain Service"])
def test_a_canary_without_a_pod_is_left_even_while_it_is_paused(traffic: Json | None) -> None:
    driver = started(weight(25), APPROVAL, traffic=traffic)
    driver.run()
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    driver.run()
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "CapacityLost")
    assert shares(driver) == {"v1": 100}


def test_each_step_has_its_event() -> None:
    driver = started(weight(25), pause(10), weight(50))
    driver.run()
    told = [note.message.partition(": ")[2] for note in driver.events.notes if note.reason == "Stepping"]
    assert [line.partition(" is held")[0] for line in told] == [
        "step 1 of 3: weight 25",
        "step 2 of 3: weight 25",
        "step 3 of 3: weight 50",
        "after the last step: weight 100",
    ]


@pytest.mark.parametrize("when", ["Paused", "Stepping"])
def test_an_abort_makes_the_selector_name_the_revision_again(when: str) -> None:
    driver = started(weight(25), APPROVAL, traffic=SERVICE_TRAFFIC)
    driver.until(when)
    driver.run(lambda: ask(driver, "abort", f"{candidate(driver)}/1"))
    assert (shares(driver), in_service(driver)) == ({"v1": 100}, {})


@pytest.mark.parametrize(
    ("replicas", "step", "nearest"),
    [(1, 5, 50), (4, 5, 20), (2, 25, 33)],
    ids=["1 replica, 5 %", "4 replicas, 5 %", "2 replicas, 25 %"],
)
def test_a_weight_that_pods_cannot_show_is_refused_with_the_nearest(replicas: int, step: int, nearest: int) -> None:
    driver = serving(weight(step), replicas=replicas, traffic=SERVICE_TRAFFIC)
    driver.run(lambda: point_to(driver, "v2"))
    assert driver.condition("Ready")["reason"] == "WeightNotReachable"
    assert f"steps[0].setWeight: found {step}" in driver.condition("Ready")["message"]
    assert f"(nearest: {nearest})" in driver.condition("Ready")["message"]
    assert (driver.condition("Stalled")["status"], shares(driver)) == ("True", {"v1": 100})


def test_replicas_that_cannot_show_the_held_weight_are_complained_about_until_they_can() -> None:
    driver = started(weight(25), pause(600), weight(50), APPROVAL, traffic=SERVICE_TRAFFIC)
    driver.until("Stepping", sub="Bake")
    driver.cluster.tick(300)
    driver.edit(lambda spec: spec.update(replicas=2))
    driver.run()
    assert (driver.status["phase"], driver.condition("Ready")["reason"]) == ("Paused", "WeightNotReachable")
    message = driver.condition("Ready")["message"]
    assert message.startswith("spec.replicas: found 2, expected a number that shows weight 25 within 5 points")
    assert "(nearest: 33)" in message
    assert f"loraops.dev/promote-full={candidate(driver)}/" in message
    driver.cluster.tick(86400)
    driver.run()
    assert driver.status["step"]["index"] == 1, "no further step"
    driver.edit(lambda spec: spec.update(replicas=4))
    driver.look(2)
    begun = driver.cluster.now
    driver.until("Stepping", index=2)
    assert timedelta(seconds=240) <= driver.cluster.now - begun <= timedelta(seconds=310), "its time stood still"
    driver.run()
    assert shares(driver) == {"v1": 50, "v2": 50}


@pytest.mark.parametrize("way_out", ["promote", "replicas", "abort"])
def test_replicas_edited_during_an_approval_are_complained_about_and_a_person_finds_a_way_out(way_out: str) -> None:
    driver = started(weight(25), APPROVAL, weight(50), APPROVAL, traffic=SERVICE_TRAFFIC)
    driver.run()
    driver.run(lambda: driver.edit(lambda spec: spec.update(replicas=2)))
    assert driver.condition("Ready")["reason"] == "WeightNotReachable"
    if way_out == "replicas":
        driver.run(lambda: driver.edit(lambda spec: spec.update(replicas=4)))
        assert (driver.status["pause"]["reason"], shares(driver)) == ("AwaitingPromote", {"v1": 75, "v2": 25})
    else:
        driver.run(lambda: ask(driver, way_out, f"{candidate(driver)}/1"))
        assert shares(driver) == ({"v1": 50, "v2": 50} if way_out == "promote" else {"v1": 100})


def test_a_later_step_edited_to_what_pods_cannot_show_moves_nothing() -> None:
    driver = started(weight(25), pause(60), weight(50), APPROVAL, traffic=SERVICE_TRAFFIC)
    driver.until("Stepping", sub="Bake")
    driver.edit(lambda spec: spec["strategy"].update(canary(weight(25), pause(60), weight(90), APPROVAL)))
    driver.run()
    assert (driver.status["pause"]["reason"], shares(driver)) == ("WeightNotReachable", {"v1": 75, "v2": 25})
    assert "steps[2].setWeight: found 90" in driver.condition("Ready")["message"]
    ask(driver, "resume", f"{candidate(driver)}/1")
    driver.run()
    assert driver.status["lastRequests"]["resume"]["result"].startswith("Ignored: the weight cannot be shown")
    driver.run(lambda: ask(driver, "promote-full", f"{candidate(driver)}/1"))
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


@pytest.mark.parametrize("traffic", [None, SERVICE_TRAFFIC], ids=["Gateway", "plain Service"])
def test_zero_replicas_in_the_middle_leave_the_old_version_a_pod_until_the_rollout_is_over_t2(
    traffic: Json | None,
) -> None:
    driver = started(weight(50), APPROVAL, traffic=traffic)
    driver.run()
    driver.run(lambda: driver.edit(lambda spec: spec.update(replicas=0)))
    assert (driver.status["phase"], replicas(driver)) == ("Paused", {"v1": 1, "v2": 1})
    ask(driver, "abort", f"{candidate(driver)}/1")
    driver.until("Aborting", sub="Drain")
    assert (replicas(driver)["v1"], shares(driver)) == (1, {"v1": 100})

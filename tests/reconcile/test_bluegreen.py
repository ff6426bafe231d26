"""Strategy BlueGreen, and the way back to a warm version under every strategy, through the real reconcile loop.

The cluster itself checks T1, T2, T6, T19 and T20 at every write, the driver T25 at every quiet reconcile; the tests below
look at the order and at how it ends.
"""

from datetime import timedelta
from typing import Any

import pytest

from lora_operator.api.kinds import DEPLOYMENT, HTTP_ROUTE, NODE, POD
from tests.fakes.cluster import Cluster
from tests.fakes.rollout_driver import (
    NAME,
    Driver,
    ask,
    candidate,
    point_to,
    replicas,
    served,
    shares,
    stable,
    started,
)

Json = dict[str, Any]


def blue_green(**settings: Any) -> Json:
    return {"type": "BlueGreen", "blueGreen": {"switchDelaySeconds": 30, "keepPreviousSeconds": 300, **settings}}


def serving(*, cluster_gpus: int = 2, traffic: Json | None = None, **settings: Any) -> Driver:
    """v1 serves under BlueGreen."""
    return stable(cluster_gpus=cluster_gpus, traffic=traffic, strategy=blue_green(**settings))


def test_the_first_version_goes_straight_to_100() -> None:
    assert serving().phases == ["Pending", "Preparing", "Promoting", "Stable"]


@pytest.mark.parametrize("traffic", [None, {"service": {}}], ids=["Gateway", "plain Service"])
def test_all_requests_switch_at_once_after_the_delay_and_the_old_version_stays_warm(traffic: Json | None) -> None:
    driver = serving(traffic=traffic)
    point_to(driver, "v2")
    driver.until("Preparing", sub="Delay")
    proven = driver.cluster.now
    assert shares(driver) == {"v1": 100}
    driver.until("Switching")
    assert driver.cluster.now - proven >= timedelta(seconds=29)
    assert shares(driver) == {"v1": 100}, "the switch waits for ready pods once more"
    driver.until("Stable")
    assert driver.phases[4:] == ["Preparing", "Switching", "Promoting", "Stable"]
    assert (served(driver), shares(driver), replicas(driver)) == ("v2", {"v2": 100}, {"v1": 1, "v2": 1})
    assert driver.status["previous"]["adapter"] == "v1"
    assert driver.condition("Ready")["status"] == "True"
    driver.run()
    assert replicas(driver) == {"v1": 0, "v2": 1}
    assert "previous" not in driver.status
    entry = driver.status["history"][0]
    assert (entry["strategy"], entry["result"], entry["adapter"]) == ("BlueGreen", "Succeeded", "v2")


def test_without_a_delay_of_its_own_the_settings_say() -> None:
    driver = stable(strategy={"type": "BlueGreen"})
    point_to(driver, "v2")
    driver.until("Preparing", sub="Delay")
    begun = driver.cluster.now
    driver.until("Switching")
    assert timedelta(seconds=59) <= driver.cluster.now - begun <= timedelta(seconds=63)


def test_the_old_version_is_kept_for_exactly_its_time() -> None:
    driver = serving(switchDelaySeconds=0, keepPreviousSeconds=300)
    point_to(driver, "v2")
    driver.until_serves("v2")
    end = driver.cluster.now + timedelta(seconds=295)
    while driver.cluster.now < end:
        driver.look()
        assert replicas(driver)["v1"] == 1
    driver.run()
    assert replicas(driver)["v1"] == 0


def test_a_return_inside_the_window_switches_without_preparing_again_t17() -> None:
    driver = serving(switchDelaySeconds=0)
    point_to(driver, "v2")
    driver.until_serves("v2")
    driver.look(3)
    assert served(driver) == "v2"
    del driver.phases[:]
    asked = driver.cluster.now
    pods = {pod["metadata"]["uid"] for pod in driver.cluster.every(POD)}
    point_to(driver, "v1")
    driver.until("Switching")
    driver.until("Stable")
    assert driver.phases == ["Switching", "Promoting", "Stable"]
    assert driver.cluster.now - asked < timedelta(seconds=10)
    assert (served(driver), shares(driver)) == ("v1", {"v1": 100})
    assert {pod["metadata"]["uid"] for pod in driver.cluster.every(POD)} == pods, "no pod was started or stopped"
    assert driver.status["previous"]["adapter"] == "v2", "and the way forth is warm too"


@pytest.mark.parametrize("kind", ["Replace", "Canary"])
def test_a_return_while_the_old_pods_still_drain_switches_under_every_strategy_t17(kind: str) -> None:
    strategy = {"type": kind, "canary": {"steps": [{"setWeight": 50}]}}
    driver = stable(strategy=strategy, replicas=2, cluster_gpus=4)
    point_to(driver, "v2")
    driver.until_serves("v2")
    del driver.phases[:]
    point_to(driver, "v1")
    driver.until("Switching")
    driver.run()
    assert driver.phases[-3:] == ["Switching", "Promoting", "Stable"]
    assert (served(driver), replicas(driver)) == ("v1", {"v1": 2, "v2": 0})


def test_rollback_to_inside_the_window_switches_and_holds_the_declared_version_t17() -> None:
    driver = serving(switchDelaySeconds=0)
    first = driver.status["stable"]["revision"]
    point_to(driver, "v2")
    driver.until_serves("v2")
    second = driver.status["stable"]["revision"]
    ask(driver, "rollback-to", f"{first}/1")
    driver.until("Switching")
    driver.run()
    assert (served(driver), driver.status["heldRevision"]) == ("v1", second)


def test_a_previous_version_that_lost_a_pod_is_prepared_again() -> None:
    driver = serving(switchDelaySeconds=0, cluster_gpus=3)
    point_to(driver, "v2")
    driver.until_serves("v2")
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v1" else "good"
    driver.look(2)
    point_to(driver, "v1")
    driver.until("Preparing")
    assert "previous" not in driver.status
    driver.cluster.behaviour = lambda _: "good"
    driver.run()
    assert (served(driver), replicas(driver)) == ("v1", {"v1": 1, "v2": 0})


def test_auto_promote_false_waits_for_a_person_and_keeps_no_clock() -> None:
    driver = serving(autoPromote=False)
    driver.run(lambda: point_to(driver, "v2"))
    assert (driver.status["phase"], driver.status["pause"]["reason"]) == ("Paused", "AwaitingPromote")
    assert driver.condition("Ready")["reason"] == "AwaitingPromote"
    assert f"loraops.dev/promote={candidate(driver)}/" in driver.condition("Ready")["message"]
    driver.cluster.tick(10 * 86400)
    driver.run()
    assert (driver.status["phase"], shares(driver)) == ("Paused", {"v1": 100})
    writes = len(driver.cluster.writes)
    driver.run()
    assert len(driver.cluster.writes) == writes, "a pause writes nothing"
    ask(driver, "promote", f"{candidate(driver)}/1")
    driver.until("Switching")
    driver.run()
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")
    assert driver.status["lastRequests"]["promote"]["result"] == "Accepted"


@pytest.mark.parametrize("verb", ["promote", "promote-full"])
def test_a_promote_during_the_delay_switches_now(verb: str) -> None:
    driver = serving(switchDelaySeconds=3600)
    point_to(driver, "v2")
    driver.until("Preparing", sub="Delay")
    begun = driver.cluster.now
    ask(driver, verb, f"{candidate(driver)}/1")
    driver.until("Stable")
    assert driver.cluster.now - begun < timedelta(seconds=30)
    assert served(driver) == "v2"


def test_a_promote_before_the_candidate_is_proven_is_ignored_and_does_not_wake_up_later() -> None:
    driver = serving(autoPromote=False)
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    point_to(driver, "v2")
    driver.until("Preparing")
    ask(driver, "promote", f"{candidate(driver)}/1")
    driver.look(3)
    assert driver.status["lastRequests"]["promote"]["result"].startswith("Ignored: ")
    driver.cluster.behaviour = lambda _: "good"
    driver.run()
    assert (driver.status["phase"], served(driver)) == ("Paused", "v1")


def test_approval_of_a_candidate_that_lost_its_pods_waits_for_them_t1() -> None:
    driver = serving(autoPromote=False)
    driver.run(lambda: point_to(driver, "v2"))
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    driver.look(2)
    ask(driver, "promote", f"{candidate(driver)}/1")
    driver.until("Switching", sub="WaitReady")
    driver.look(5)
    assert shares(driver) == {"v1": 100}
    driver.cluster.behaviour = lambda _: "good"
    driver.run()
    assert served(driver) == "v2"


@pytest.mark.parametrize(
    "where", [("Preparing", "Verify"), ("Preparing", "Delay"), ("Switching", "Shift"), ("Paused", None)]
)
def test_an_abort_anywhere_leaves_everything_with_the_old_version_t3(where: tuple[str, str | None]) -> None:
    driver = serving(autoPromote=where[0] != "Paused")
    point_to(driver, "v2")
    driver.until(where[0], sub=where[1])
    driver.run(lambda: ask(driver, "abort", f"{candidate(driver)}/1"))
    assert (driver.status["phase"], served(driver), shares(driver)) == ("Aborted", "v1", {"v1": 100})
    assert replicas(driver) == {"v1": 1, "v2": 0}
    assert driver.status["history"][0]["result"] == "RolledBack"


def test_abort_wins_over_promote_t14() -> None:
    driver = serving(autoPromote=False)
    driver.run(lambda: point_to(driver, "v2"))
    revision = candidate(driver)
    ask(driver, "promote", f"{revision}/1")
    driver.run(lambda: ask(driver, "abort", f"{revision}/1"))
    assert (driver.status["phase"], served(driver)) == ("Aborted", "v1")
    assert driver.status["lastRequests"]["promote"]["result"].startswith("Ignored: ")


def test_a_candidate_that_dies_right_after_the_switch_is_left_at_once_t7() -> None:
    driver = serving(switchDelaySeconds=0)
    driver.cluster.gateway_takes = False  # the route is written, its controller is slow
    point_to(driver, "v2")
    driver.until("Switching", sub="Shift")
    driver.look(2)
    assert shares(driver) == {"v2": 100}
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    driver.look(4)
    assert shares(driver) == {"v1": 100}
    driver.cluster.gateway_takes = True
    driver.run()
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "CapacityLost")


def test_a_third_version_lets_the_warm_one_go_and_ends_with_two_t10() -> None:
    driver = serving(switchDelaySeconds=0, cluster_gpus=3)
    point_to(driver, "v2")
    driver.until_serves("v2")
    point_to(driver, "v3")
    driver.until_serves("v3")
    assert (served(driver), driver.status["previous"]["adapter"]) == ("v3", "v2")
    assert replicas(driver) == {"v1": 0, "v2": 1, "v3": 1}


def test_the_warm_version_gives_its_gpu_to_the_next_candidate() -> None:
    driver = serving(switchDelaySeconds=0, keepPreviousSeconds=86400)
    point_to(driver, "v2")
    driver.until_serves("v2")
    point_to(driver, "v3")
    driver.until("Pending")
    assert driver.condition("Ready")["reason"] == "Draining"
    driver.until("Switching")
    driver.until("Stable")
    assert served(driver) == "v3"
    assert sum(replicas(driver).values()) <= 2


def test_without_rights_on_nodes_the_warm_version_goes_first() -> None:
    driver = serving(switchDelaySeconds=0, keepPreviousSeconds=86400)
    point_to(driver, "v2")
    driver.until_serves("v2")
    driver.cluster.forbidden.add(NODE)
    point_to(driver, "v3")
    driver.until_serves("v3")
    assert (served(driver), replicas(driver)) == ("v3", {"v1": 0, "v2": 1, "v3": 1})


def test_more_replicas_take_the_gpu_of_the_warm_version() -> None:
    driver = serving(switchDelaySeconds=0, keepPreviousSeconds=86400)
    point_to(driver, "v2")
    driver.until_serves("v2")
    driver.edit(lambda spec: spec.update(replicas=2))
    driver.run()
    assert (driver.condition("Ready")["status"], replicas(driver)) == ("True", {"v1": 0, "v2": 2})


def test_no_room_for_two_versions_is_refused_at_once_with_numbers() -> None:
    driver = serving(cluster_gpus=1)
    driver.run(lambda: point_to(driver, "v2"))
    ready = driver.condition("Ready")
    assert (ready["reason"], driver.condition("Stalled")["status"]) == ("InsufficientGPU", "True")
    assert "1 pod with 1 nvidia.com/gpu each beside the serving version (BlueGreen keeps both)" in ready["message"]
    assert "1 in all, 0 free" in ready["message"]
    assert "strategy Replace" in ready["message"]
    assert (served(driver), replicas(driver)) == ("v1", {"v1": 1})


def test_a_candidate_that_the_scheduler_cannot_place_is_given_up_and_never_pending_for_ever() -> None:
    driver = serving(cluster_gpus=1)
    driver.cluster.forbidden.add(NODE)
    driver.run(lambda: point_to(driver, "v2"))
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "InsufficientGPU")
    assert (served(driver), replicas(driver)) == ("v1", {"v1": 1, "v2": 0})


@pytest.mark.parametrize("sub", ["Verify", "Delay"])
def test_spec_paused_holds_and_its_time_counts_for_no_other_clock_t13(sub: str) -> None:
    driver = serving(switchDelaySeconds=100)
    driver.edit(lambda spec: spec.update(progressDeadlineSeconds=120))
    if sub == "Verify":
        driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    point_to(driver, "v2")
    driver.until("Preparing", sub=sub)
    driver.edit(lambda spec: spec.update(paused=True))
    driver.look(2)
    assert driver.status["phase"] == "Paused"
    driver.cluster.tick(7200)
    driver.look(2)
    driver.cluster.behaviour = lambda _: "good"
    driver.edit(lambda spec: spec.update(paused=False))
    driver.until("Preparing", sub="Delay")
    again = driver.cluster.now
    driver.until("Switching")
    assert driver.cluster.now - again >= timedelta(seconds=90)
    driver.run()
    assert served(driver) == "v2"


def test_a_pause_request_holds_until_resume() -> None:
    driver = serving()
    point_to(driver, "v2")
    driver.until("Preparing", sub="Delay")
    driver.run(lambda: ask(driver, "pause", f"{candidate(driver)}/1"))
    assert driver.status["pause"]["reason"] == "PauseRequested"
    driver.cluster.tick(3600)
    driver.run()
    assert (driver.status["phase"], served(driver)) == ("Paused", "v1")
    driver.run(lambda: ask(driver, "resume", f"{candidate(driver)}/1"))
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


def test_promote_does_not_override_spec_paused() -> None:
    driver = serving(autoPromote=False)
    driver.run(lambda: point_to(driver, "v2"))
    driver.edit(lambda spec: spec.update(paused=True))
    driver.look(2)
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/1"))
    assert driver.status["lastRequests"]["promote"]["result"] == "Ignored: spec.paused is true; set it to false"
    driver.edit(lambda spec: spec.update(paused=False))
    driver.run()
    assert driver.status["pause"]["reason"] == "AwaitingPromote", "the approval is still missing"
    driver.run(lambda: ask(driver, "promote", f"{candidate(driver)}/2"))
    assert served(driver) == "v2"


@pytest.mark.parametrize(
    ("sub", "kind", "phase"),
    [
        pytest.param("Verify", "Replace", "Promoting", id="to Replace while the candidate starts"),
        pytest.param("Delay", "Replace", "Promoting", id="to Replace during the delay"),
        pytest.param("Delay", "Canary", "Stepping", id="to Canary during the delay"),
    ],
)
def test_the_strategy_may_be_edited_before_the_switch(sub: str, kind: str, phase: str) -> None:
    driver = serving(switchDelaySeconds=3600)
    point_to(driver, "v2")
    driver.until("Preparing", sub=sub)
    driver.edit(lambda spec: spec["strategy"].update(type=kind, canary={"steps": [{"setWeight": 50}]}))
    driver.until(phase)
    driver.run()
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


def test_a_bad_candidate_never_gets_a_request() -> None:
    driver = serving()
    driver.cluster.behaviour = lambda name: "wrong" if name == "v2" else "good"
    before = len(driver.cluster.writes)
    driver.run(lambda: point_to(driver, "v2"))
    assert (driver.status["phase"], driver.status["abort"]["reason"]) == ("Aborted", "WrongModelAnswers")
    assert not any("HTTPRoute" in write for write in driver.cluster.writes[before:])


async def test_the_declared_version_changes_back_during_the_switch() -> None:
    driver = started(Cluster(gpus=2), strategy=blue_green(switchDelaySeconds=0))
    await driver.settle()
    point_to(driver, "v2")
    await driver.reach(lambda status: status["phase"] == "Switching" and status["step"]["sub"] == "Shift")
    point_to(driver, "v1")
    await driver.settle()
    assert (driver.status["phase"], served(driver), shares(driver)) == ("Stable", "v1", {"v1": 100})
    assert driver.status["history"][0]["result"] == "Superseded"


def test_a_route_deleted_during_the_switch_is_written_again_t22() -> None:
    driver = serving(switchDelaySeconds=0)
    driver.cluster.gateway_takes = False
    point_to(driver, "v2")
    driver.until("Switching", sub="Shift")
    driver.look(2)
    driver.cluster.remove(HTTP_ROUTE, NAME)
    driver.cluster.gateway_takes = True
    driver.run()
    assert (served(driver), shares(driver)) == ("v2", {"v2": 100})


def test_the_warm_version_is_not_resurrected_by_replica_edits_t12() -> None:
    driver = serving(switchDelaySeconds=0, cluster_gpus=8)
    point_to(driver, "v2")
    driver.until_serves("v2")
    driver.edit(lambda spec: spec.update(replicas=3))
    driver.look(4)
    assert replicas(driver) == {"v1": 1, "v2": 3}
    driver.run()
    name = next(d["metadata"]["name"] for d in driver.cluster.every(DEPLOYMENT) if d["spec"]["replicas"] == 0)
    driver.cluster.edit(DEPLOYMENT, name, lambda d: d["spec"].update(replicas=2))
    driver.run()
    assert replicas(driver) == {"v1": 0, "v2": 3}

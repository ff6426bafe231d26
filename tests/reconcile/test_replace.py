"""Strategy Replace and the first deployment, through the real reconcile loop against the simulated cluster.

The cluster itself checks T1, T2, T6, T19 and T20 at every write; the tests below look at how it ends.
"""

import asyncio
import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from lora_operator.api.kinds import (
    ADAPTER,
    CLAIM,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    GATEWAY,
    HTTP_ROUTE,
    LORA_DEPLOYMENT,
    NODE,
    POD,
    SERVICE,
)
from tests.fakes.cluster import Cluster
from tests.fakes.rollout_driver import NAME, Driver, adapter, ask, point_to, replicas, served, stable, started

Json = dict[str, Any]


def test_first_deployment_goes_straight_to_100_once_verified() -> None:
    driver = stable()
    assert driver.phases == ["Pending", "Preparing", "Promoting", "Stable"]
    assert driver.status["stable"] == {
        "revision": driver.status["stable"]["revision"],
        "adapter": "v1",
        "artifactDigest": "sha256:v1",
        "weight": 100,
        "readyReplicas": 1,
    }
    assert driver.status["endpoints"] == ["http://fin.example.com/v1/chat/completions"]
    assert driver.condition("Ready")["status"] == driver.condition("Available")["status"] == "True"


def test_no_route_exists_before_the_first_candidate_is_verified() -> None:
    cluster = Cluster()
    cluster.behaviour = lambda _: "never-ready"
    driver = started(cluster, progressDeadlineSeconds=60)
    driver.run()
    assert driver.status["phase"] == "Aborted"
    assert cluster.peek(HTTP_ROUTE, NAME) is None
    assert not any("HTTPRoute" in write for write in cluster.writes)


def test_replace_with_a_free_gpu_shifts_then_drains_then_scales_down() -> None:
    driver = stable()
    before = len(driver.cluster.writes)
    driver.run(lambda: point_to(driver, "v2"))
    assert served(driver) == "v2"
    assert replicas(driver) == {"v1": 0, "v2": 1}
    assert driver.status["downtime"] == {"seconds": 0}
    order = [write for write in driver.cluster.writes[before:] if "status" not in write]
    route = order.index("apply HTTPRoute fin")
    assert [w.split("-")[0] for w in order[route + 1 :]] == ["apply Deployment fin"], (
        "only the old version is scaled after the shift"
    )


def test_replace_without_a_free_gpu_declares_its_downtime() -> None:
    driver = stable(cluster_gpus=1)
    driver.cluster.downtime_allowed = True
    driver.run(lambda: point_to(driver, "v2"))
    assert served(driver) == "v2"
    assert driver.status["downtime"]["seconds"] > 0
    assert replicas(driver) == {"v1": 0, "v2": 1}
    assert any("stopped first" in note.message for note in driver.events.notes)


def test_more_gpus_than_exist_is_refused_with_numbers_and_v1_goes_on() -> None:
    driver = stable()

    def want_many() -> None:
        driver.cluster.edit(
            LORA_DEPLOYMENT, NAME, lambda o: o["spec"]["runtime"]["resources"]["limits"].update({"nvidia.com/gpu": 8})
        )

    driver.run(want_many)
    ready = driver.condition("Ready")
    assert (ready["reason"], driver.condition("Stalled")["status"], driver.status["phase"]) == (
        "InsufficientGPU",
        "True",
        "Pending",
    )
    assert "8 nvidia.com/gpu each" in ready["message"]
    assert "2 in all" in ready["message"]
    assert driver.condition("Available")["status"] == "True"
    assert replicas(driver) == {"v1": 1}


def test_replicas_beyond_the_node_of_a_readwriteonce_claim_are_refused_with_the_way_out() -> None:
    driver = stable(cluster_gpus=2)
    cluster = driver.cluster
    node_b = copy.deepcopy(cluster.peek(NODE, "node-a") or {})
    cluster.put(NODE, {**node_b, "metadata": {"name": "node-b"}})
    cluster.edit(CLAIM, "models", lambda o: o["spec"].update(accessModes=["ReadWriteOnce"]))

    def three_of_v2() -> None:
        cluster.edit(LORA_DEPLOYMENT, NAME, lambda o: o["spec"].update(replicas=3))
        point_to(driver, "v2")

    driver.run(three_of_v2)
    ready = driver.condition("Ready")
    assert (ready["reason"], driver.condition("Stalled")["status"]) == ("VolumeNotShareable", "True")
    assert "ReadWriteMany" in ready["message"]
    assert served(driver) == "v1"


def test_pods_of_a_readwriteonce_claim_follow_each_other() -> None:
    cluster = Cluster(gpus=2)
    cluster.edit(CLAIM, "models", lambda o: o["spec"].update(accessModes=["ReadWriteOnce"]))
    driver = started(cluster)
    driver.run()
    template = next(iter(cluster.every(DEPLOYMENT)))["spec"]["template"]
    term = template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert term["labelSelector"]["matchExpressions"][0]["key"] in template["metadata"]["labels"]


def test_gpus_held_by_others_are_waited_for_and_it_heals() -> None:
    cluster = Cluster(gpus=2)
    for name in ("a", "b"):
        resources = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
        cluster.put(
            POD,
            {
                "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"adapter": ""}},
                "spec": {"nodeName": "node-a", "containers": [resources]},
                "status": {"phase": "Running"},
            },
        )
    driver = started(cluster)
    driver.run()
    assert driver.condition("Ready")["reason"] == "InsufficientGPU"
    assert driver.condition("Stalled")["status"] == "False"
    driver.run(lambda: cluster.remove(POD, "a"))
    assert driver.status["phase"] == "Stable"


@pytest.mark.parametrize(
    ("behaviour", "reason", "words"),
    [
        pytest.param("crash", "PodFailed", "ValueError: no such layer", id="a crash loop is told with its last line"),
        pytest.param("image", "ImageNotAvailable", "nowhere/x:1", id="an image that cannot be pulled is named"),
        pytest.param(
            "never-ready", "ProgressDeadlineExceeded", "0 of 1 pods ready", id="never ready ends at the deadline"
        ),
        pytest.param(
            "wrong", "WrongModelAnswers", "found 'A'", id="a pod that answers as another model gets no weight"
        ),
    ],
)
def test_a_bad_version_is_rolled_back_and_sticky(behaviour: str, reason: str, words: str) -> None:
    driver = stable(progressDeadlineSeconds=300)
    driver.cluster.behaviour = lambda name: behaviour if name == "v2" else "good"
    driver.run(lambda: point_to(driver, "v2"))
    status = driver.status
    assert (status["phase"], served(driver), status["abort"]["reason"]) == ("Aborted", "v1", reason)
    assert words in driver.condition("Ready")["message"]
    assert driver.condition("RolledBack")["status"] == "True"
    assert driver.condition("Available")["status"] == "True"
    assert status["history"][0]["result"] == "RolledBack"
    assert replicas(driver) == {"v1": 1, "v2": 0}
    writes = len(driver.cluster.writes)
    for _ in range(10):
        driver.cluster.tick(3600)
        driver.run()
    assert len(driver.cluster.writes) == writes, "ten further hours write nothing"


def test_retry_starts_the_given_up_revision_again() -> None:
    driver = stable(progressDeadlineSeconds=60)
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    driver.run(lambda: point_to(driver, "v2"))
    driver.cluster.behaviour = lambda _: "good"
    driver.run(lambda: ask(driver, "retry", f"{driver.status['abort']['revision']}/1"))
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")
    assert "abort" not in driver.status
    assert driver.condition("RolledBack")["status"] == "False"
    assert driver.status["lastRequests"]["retry"]["result"] == "Accepted"


def test_a_failed_state_accepts_the_next_revision() -> None:
    driver = stable(progressDeadlineSeconds=60)
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    driver.run(lambda: point_to(driver, "v2"))
    driver.run(lambda: point_to(driver, "v3"))
    assert (driver.status["phase"], served(driver)) == ("Stable", "v3")


def test_going_back_to_the_serving_adapter_after_an_abort_is_stable_again() -> None:
    driver = stable(progressDeadlineSeconds=60)
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    driver.run(lambda: point_to(driver, "v2"))
    driver.run(lambda: point_to(driver, "v1"))
    assert driver.status["phase"] == "Stable"
    assert "candidate" not in driver.status
    assert driver.condition("Ready")["status"] == "True"


def test_rollback_to_returns_to_a_stored_revision_and_holds_the_declared_one() -> None:
    driver = stable()
    first = driver.status["stable"]["revision"]
    driver.run(lambda: point_to(driver, "v2"))
    second = driver.status["stable"]["revision"]
    driver.run(lambda: ask(driver, "rollback-to", f"{first}/1"))
    assert (driver.status["phase"], driver.status["stable"]["revision"]) == ("Stable", first)
    assert driver.status["heldRevision"] == second
    driver.run(lambda: ask(driver, "retry", f"{second}/1"))
    assert driver.status["stable"]["revision"] == second
    assert "heldRevision" not in driver.status


def test_rollback_to_survives_the_loss_of_its_adapter() -> None:
    driver = stable()
    first = driver.status["stable"]["revision"]
    driver.run(lambda: point_to(driver, "v2"))
    driver.cluster.remove(ADAPTER, "v1")
    driver.run(lambda: ask(driver, "rollback-to", f"{first}/1"))
    assert driver.status["stable"]["revision"] == first


@pytest.mark.parametrize("verb", ["promote", "promote-full", "pause", "resume"])
def test_requests_without_meaning_under_replace_are_recorded_as_ignored(verb: str) -> None:
    driver = stable()
    driver.run(lambda: ask(driver, verb, "x/1"))
    assert driver.status["lastRequests"][verb]["result"].startswith("Ignored: ")


def test_an_abort_of_another_revision_is_ignored() -> None:
    driver = stable()
    driver.run(lambda: ask(driver, "abort", "00000000/1"))
    assert driver.status["lastRequests"]["abort"]["result"] == "Ignored: no rollout is running"


async def test_abort_during_preparation_leaves_the_old_version_untouched() -> None:
    driver = started(Cluster())
    await driver.settle()
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    point_to(driver, "v2")
    for _ in range(5):
        await driver.step()
        driver.cluster.tick()
    ask(driver, "abort", f"{driver.status['candidate']['revision']}/1")
    await driver.settle()
    assert (driver.status["phase"], served(driver), driver.status["abort"]["reason"]) == (
        "Aborted",
        "v1",
        "AbortRequested",
    )


async def test_revision_3_during_2_during_1_ends_with_1_and_3_only() -> None:
    driver = started(Cluster(gpus=3))
    await driver.settle()
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    point_to(driver, "v2")
    for _ in range(5):
        await driver.step()
        driver.cluster.tick()
    point_to(driver, "v3")
    await driver.settle()
    assert served(driver) == "v3"
    assert replicas(driver) == {"v1": 0, "v3": 1}
    assert [entry["result"] for entry in driver.status["history"]] == ["Succeeded", "Superseded", "Succeeded"]


def quantized(name: str, quantization: str) -> Json:
    """A ready adapter whose artifact has that format."""
    found = adapter(name)
    found["status"]["artifact"]["quantization"] = quantization
    return found


def test_an_image_of_the_users_own_may_run_what_the_profiles_cannot() -> None:
    driver = stable()
    driver.cluster.put(ADAPTER, quantized("four-bits", "W4A16"))

    def own_image() -> None:
        driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda o: o["spec"]["runtime"].update(image="mine:1"))
        point_to(driver, "four-bits")

    driver.run(own_image)
    assert served(driver) == "four-bits"


@pytest.mark.parametrize(
    ("change", "reason", "stalled"),
    [
        pytest.param(
            lambda spec: spec["adapterRef"].update(name="nobody"),
            "AdapterNotFound",
            "False",
            id="an adapterRef to nothing",
        ),
        pytest.param(
            lambda spec: spec["adapterRef"].update(name="building"),
            "AdapterNotReady",
            "False",
            id="an adapter that still builds",
        ),
        pytest.param(
            lambda spec: spec["adapterRef"].update(name="rejected"),
            "AdapterNotReady",
            "True",
            id="an adapter that was rejected",
        ),
        pytest.param(
            lambda spec: spec.update(analysis={"metrics": [{"name": "e", "query": "up"}]}),
            "Invalid",
            "True",
            id="a query with nobody to ask",
        ),
        pytest.param(
            lambda spec: spec["runtime"].update(profile="tgi"), "UnknownProfile", "True", id="an unknown profile"
        ),
        pytest.param(
            lambda spec: spec.update(adapterRef={"name": "building"}, runtime={**spec["runtime"], "profile": "tgi"}),
            "UnknownProfile",
            "True",
            id="an unknown profile, while the adapter still builds",
        ),
        pytest.param(
            lambda spec: spec["runtime"].update(profile="vllm"), "Invalid", "True", id="a profile that brings no image"
        ),
        pytest.param(
            lambda spec: spec["runtime"].update(maxModelLen=512),
            "Invalid",
            "True",
            id="a field the profile cannot express",
        ),
        pytest.param(
            lambda spec: spec.update(adapterRef={"name": "four-bits"}),
            "Invalid",
            "True",
            id="a format that the profile's image cannot run",
        ),
        pytest.param(lambda spec: spec.update(replicas=-1), "Invalid", "True", id="a value of the wrong kind"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_old_version_goes_on(
    change: Callable[[Json], None], reason: str, stalled: str
) -> None:
    driver = stable()
    driver.cluster.put(ADAPTER, adapter("building", ready=False))
    driver.cluster.put(ADAPTER, quantized("four-bits", "W4A16"))
    gates = [{"name": "safety", "status": "FAIL"}, {"name": "fidelity", "status": "FAIL"}]
    driver.cluster.put(ADAPTER, adapter("rejected", ready=False, phase="Rejected", validation={"gates": gates}))
    before = copy.deepcopy(driver.cluster.shares())
    driver.run(lambda: driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: change(obj["spec"])))
    assert driver.condition("Ready")["reason"] == reason
    assert driver.condition("Stalled")["status"] == stalled
    assert driver.condition("Available")["status"] == "True"
    assert driver.cluster.shares() == before
    assert replicas(driver) == {"v1": 1}


def test_force_deploy_overrides_soft_gates_and_says_so() -> None:
    driver = stable()
    driver.cluster.put(
        ADAPTER,
        adapter("weak", ready=False, phase="Rejected", validation={"gates": [{"name": "score", "status": "FAIL"}]}),
    )
    driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"].update(forceDeploy=True))
    driver.run(lambda: point_to(driver, "weak"))
    assert served(driver) == "weak"
    assert driver.status["effective"]["forceDeploy"] == {"adapter": "weak", "gates": ["score"]}
    assert "score" in driver.condition("Ready")["message"]
    assert any(note.reason == "ForceDeployed" for note in driver.events.notes)


def test_force_deploy_never_overrides_a_hard_gate() -> None:
    driver = stable()
    driver.cluster.put(
        ADAPTER,
        adapter(
            "broken", ready=False, phase="Rejected", validation={"gates": [{"name": "fidelity", "status": "FAIL"}]}
        ),
    )
    driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"].update(forceDeploy=True))
    driver.run(lambda: point_to(driver, "broken"))
    assert served(driver) == "v1"
    assert "hard gates fidelity" in driver.condition("Ready")["message"]


def test_an_adapter_that_validates_again_stays_on_the_air() -> None:
    driver = stable()

    def revalidate() -> None:
        def change(obj: Json) -> None:
            obj["status"]["conditions"][0] |= {"status": "False", "reason": "Validating"}

        driver.cluster.edit(ADAPTER, "v1", change)

    driver.run(revalidate)
    assert driver.status["phase"] == "Stable"
    assert driver.condition("Ready")["status"] == "True"


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda c: c.remove(HTTP_ROUTE, NAME), id="the route is deleted"),
        pytest.param(
            lambda c: c.edit(HTTP_ROUTE, NAME, lambda r: r["spec"]["rules"][0]["backendRefs"][0].update(weight=1)),
            id="a weight is edited",
        ),
        pytest.param(lambda c: c.edit(HTTP_ROUTE, NAME, lambda r: r["spec"]["rules"].pop()), id="a rule is taken away"),
        pytest.param(lambda c: c.remove(SERVICE, c.every(SERVICE)[0]["metadata"]["name"]), id="the Service is deleted"),
        pytest.param(
            lambda c: c.remove(DEPLOYMENT, c.every(DEPLOYMENT)[0]["metadata"]["name"]), id="the Deployment is deleted"
        ),
        pytest.param(
            lambda c: c.edit(
                DEPLOYMENT, c.every(DEPLOYMENT)[0]["metadata"]["name"], lambda d: d["spec"].update(replicas=0)
            ),
            id="the Deployment is scaled to 0",
        ),
        pytest.param(
            lambda c: c.edit(
                DEPLOYMENT,
                c.every(DEPLOYMENT)[0]["metadata"]["name"],
                lambda d: d["spec"]["template"]["spec"]["containers"][0].update(image="evil:1"),
            ),
            id="the image is edited",
        ),
        pytest.param(
            lambda c: c.remove(CONTROLLER_REVISION, c.every(CONTROLLER_REVISION)[0]["metadata"]["name"]),
            id="the stored revision is deleted",
        ),
    ],
)
def test_a_hand_edit_is_healed(harm: Callable[[Cluster], None]) -> None:
    driver = stable()
    wanted = _wishes(driver)
    driver.cluster.watch_invariants = False  # the hand edit itself breaks them
    driver.run(lambda: harm(driver.cluster))
    assert _wishes(driver) == wanted
    assert driver.condition("Ready")["status"] == "True"


def _wishes(driver: Driver) -> Json:
    """What is asked for, without versions and uids."""
    kinds = (HTTP_ROUTE, SERVICE, DEPLOYMENT, CONTROLLER_REVISION)
    return {
        f"{kind.kind}/{obj['metadata']['name']}": obj.get("spec", obj.get("data"))
        for kind in kinds
        for obj in driver.cluster.every(kind)
    }


@pytest.mark.parametrize(
    "kind", [HTTP_ROUTE, SERVICE], ids=["the route's name is taken", "the public Service's name is taken"]
)
def test_a_foreign_object_is_never_adopted(kind: Any) -> None:
    cluster = Cluster()
    spec = {"rules": [], "parentRefs": []} if kind is HTTP_ROUTE else {"selector": {"app": "shop"}}
    cluster.put(kind, {"metadata": {"name": NAME, "labels": {}}, "spec": spec})
    driver = started(cluster, traffic=None if kind is HTTP_ROUTE else {"service": {}})
    driver.run()
    assert driver.condition("Ready")["reason"] == "NameTaken"
    assert cluster.peek(kind, NAME)["spec"] == spec  # type: ignore[index]
    driver.run(lambda: cluster.remove(kind, NAME))
    assert driver.status["phase"] == "Stable"


def test_deletion_takes_the_route_first_then_drains_then_lets_go() -> None:
    driver = stable()
    cluster = driver.cluster
    before = len(cluster.writes)
    deleted_at = cluster.now
    driver.run(
        lambda: cluster.edit(
            LORA_DEPLOYMENT, NAME, lambda o: o["metadata"].update(deletionTimestamp="2026-01-01T12:10:00Z")
        )
    )
    assert cluster.peek(LORA_DEPLOYMENT, NAME) is None
    assert cluster.every(DEPLOYMENT) == cluster.every(POD) == []
    effects = [write for write in cluster.writes[before:] if not write.endswith("status")]
    assert effects == ["delete HTTPRoute fin", "patch LoRADeployment fin finalizers"]
    assert cluster.now - deleted_at >= timedelta(seconds=60)


def test_deletion_works_with_an_unreadable_spec_and_without_a_router() -> None:
    driver = stable()
    cluster = driver.cluster

    def break_and_delete(obj: Json) -> None:
        obj["spec"]["replicas"] = "many"
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T12:10:00Z"

    driver.run(lambda: cluster.edit(LORA_DEPLOYMENT, NAME, break_and_delete))
    assert cluster.peek(LORA_DEPLOYMENT, NAME) is None
    assert cluster.every(HTTP_ROUTE) == []


def test_a_missing_gateway_is_named_and_it_heals() -> None:
    cluster = Cluster(gateway=False)
    cluster.gateway_takes = False
    driver = started(cluster)
    for _ in range(20):
        driver.cluster.tick()
        _once(driver)
    assert driver.condition("Ready")["reason"] == "GatewayNotFound"
    assert "infra/public" in driver.condition("Ready")["message"]
    cluster.put(
        GATEWAY,
        {"metadata": {"name": "public"}, "spec": {"listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}]}},
    )
    cluster.gateway_takes = True
    driver.run()
    assert driver.status["phase"] == "Stable"


def _once(driver: Driver) -> None:
    asyncio.run(driver.step())


def test_plain_service_switches_its_selector_to_ready_pods_only() -> None:
    driver = stable(traffic={"service": {}})
    assert driver.status["endpoints"] == ["http://fin.shop.svc/v1/chat/completions"]
    driver.run(lambda: point_to(driver, "v2"))
    revision = driver.status["stable"]["revision"]
    assert driver.cluster.shares() == {revision: 100}


def test_changing_the_router_moves_no_traffic_to_another_revision_and_cleans_up() -> None:
    driver = stable()
    driver.run(
        lambda: driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"].update(traffic={"service": {}}))
    )
    assert driver.cluster.peek(HTTP_ROUTE, NAME) is None
    assert driver.cluster.shares() == {driver.status["stable"]["revision"]: 100}


def test_replica_edits_scale_stable_and_never_resurrect_a_candidate() -> None:
    driver = stable(progressDeadlineSeconds=60, gpus=0)
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    driver.run(lambda: point_to(driver, "v2"))
    driver.run(lambda: driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"].update(replicas=3)))
    assert replicas(driver) == {"v1": 3, "v2": 0}
    assert driver.status["replicas"] == 3
    assert (
        driver.status["selector"]
        == f"loraops.dev/deployment=fin,loraops.dev/revision={driver.status['stable']['revision']}"
    )
    assert len(driver.cluster.every(DISRUPTION_BUDGET)) == 1
    driver.run(lambda: driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"].update(replicas=1)))
    assert driver.cluster.every(DISRUPTION_BUDGET) == []


def test_a_gitops_re_apply_moves_nothing() -> None:
    driver = stable()
    writes = len(driver.cluster.writes)
    driver.run(
        lambda: driver.cluster.edit(
            LORA_DEPLOYMENT, NAME, lambda obj: obj["metadata"].setdefault("labels", {}).update(team="x")
        )
    )
    assert len(driver.cluster.writes) == writes


def test_ten_further_reconciles_write_nothing() -> None:
    driver = stable()
    writes = len(driver.cluster.writes)
    for _ in range(10):
        driver.cluster.tick(3600)
        driver.run()
    assert len(driver.cluster.writes) == writes


def test_paused_starts_nothing_and_goes_on_afterwards() -> None:
    driver = stable()
    driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"].update(paused=True))
    driver.run(lambda: point_to(driver, "v2"))
    assert (driver.status["phase"], served(driver)) == ("Paused", "v1")
    assert driver.condition("Paused")["status"] == "True"
    driver.run(lambda: driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"].update(paused=False)))
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")
    assert "pause" not in driver.status


async def test_the_progress_deadline_does_not_run_while_paused() -> None:
    driver = started(Cluster(), progressDeadlineSeconds=120)
    await driver.settle()
    driver.cluster.behaviour = lambda name: "never-ready" if name == "v2" else "good"
    point_to(driver, "v2")
    for _ in range(3):
        await driver.step()
        driver.cluster.tick()
    driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"].update(paused=True))
    await driver.step()
    driver.cluster.tick(3600)
    driver.cluster.behaviour = lambda _: "good"
    driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"].update(paused=False))
    await driver.settle()
    assert (driver.status["phase"], served(driver)) == ("Stable", "v2")


def test_without_automatic_rollback_a_bad_version_waits_for_a_person() -> None:
    driver = stable(rollback={"automatic": False})
    driver.cluster.behaviour = lambda name: "wrong" if name == "v2" else "good"
    point_to(driver, "v2")
    for _ in range(10):
        driver.cluster.tick()
        _once(driver)
    assert (driver.status["phase"], driver.condition("Ready")["reason"]) == ("Replacing", "WrongModelAnswers")
    assert driver.condition("Stalled")["status"] == "True"
    driver.run(lambda: ask(driver, "abort", f"{driver.status['candidate']['revision']}/1"))
    assert (driver.status["phase"], served(driver)) == ("Aborted", "v1")


def test_without_rights_on_nodes_the_scheduler_is_the_judge() -> None:
    driver = stable(cluster_gpus=1)
    driver.cluster.downtime_allowed = True
    driver.cluster.remove(NODE, "node-a")
    driver.cluster.put(
        NODE,
        {
            "metadata": {"name": "node-a"},
            "status": {"allocatable": {"nvidia.com/gpu": 99}, "conditions": [{"type": "Ready", "status": "True"}]},
        },
    )
    driver.run(lambda: point_to(driver, "v2"))
    assert served(driver) == "v2", "the scheduler found no room beside v1, so v1 made room"
    assert driver.status["downtime"]["seconds"] > 0


def test_a_bad_version_without_a_free_gpu_gives_the_gpu_back() -> None:
    driver = stable(cluster_gpus=1)
    driver.cluster.downtime_allowed = True
    driver.cluster.behaviour = lambda name: "crash" if name == "v2" else "good"
    driver.run(lambda: point_to(driver, "v2"))
    assert (driver.status["phase"], served(driver)) == ("Aborted", "v1")
    assert replicas(driver) == {"v1": 1, "v2": 0}
    assert driver.condition("Available")["status"] == "True"
    assert driver.status["downtime"]["seconds"] > 0


def test_history_is_limited_and_old_revisions_are_pruned() -> None:
    driver = stable(rollback={"historyLimit": 1})
    for name in ("v2", "v3", "v1", "v2"):
        driver.run(lambda name=name: point_to(driver, name))
    assert [entry["adapter"] for entry in driver.status["history"]] == ["v2"]
    assert sorted(replicas(driver)) == ["v1", "v2"]
    assert len(driver.cluster.every(CONTROLLER_REVISION)) == 2


def test_failed_attempts_never_push_a_good_revision_out_of_reach() -> None:
    driver = stable(rollback={"historyLimit": 1}, progressDeadlineSeconds=60)
    first = driver.status["stable"]["revision"]
    driver.run(lambda: point_to(driver, "v2"))
    driver.cluster.behaviour = lambda name: "crash" if name == "v3" else "good"
    for _ in range(3):
        driver.run(lambda: point_to(driver, "v3"))
        driver.run(lambda: point_to(driver, "v2"))
    driver.run(lambda: ask(driver, "rollback-to", f"{first}/1"))
    assert driver.status["stable"]["revision"] == first


def test_a_changed_profile_touches_the_next_revision_only() -> None:
    driver = stable()
    images = [d["spec"]["template"]["spec"]["containers"][0]["image"] for d in driver.cluster.every(DEPLOYMENT)]
    newer = Driver(driver.cluster, profiles={"transformers": {"image": "localhost/job:2"}})
    newer.run()
    assert newer.status["profileOutdated"] is True
    assert [d["spec"]["template"]["spec"]["containers"][0]["image"] for d in driver.cluster.every(DEPLOYMENT)] == images
    newer.run(lambda: point_to(newer, "v2"))
    assert newer.status["profileOutdated"] is False

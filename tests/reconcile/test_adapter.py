"""LoRAAdapter from apply to its end, on the simulated cluster: what a person would see."""

import asyncio
import copy
import itertools
import json
from typing import Any

import pytest

from lora_operator.api.kinds import ADAPTER, CLAIM, CONFIG_MAP, JOB, LORA_DEPLOYMENT
from tests.fakes.job_world import (
    DIGEST,
    FETCHED,
    GATES_FAILED,
    GOOD,
    MERGED,
    NAME,
    WARNED,
    AdapterDriver,
    End,
    JobWorld,
    adapter,
    applied,
    claim,
    said,
    suite,
)

WRONG_BASE = said("Refused", reason="WrongBase", message="the adapter was trained on 'x', this base is 'y'")

OWN_SUITE = {"mode": "Basic", "gates": {"basis": "Point"}, "suites": [{"configMap": {"name": "own"}}]}
NO_SUITE = said("Refused", reason="SuiteNotFound", message="expected at least one .jsonl file")
FULL_DISK = End(1, said("Failed", reason="NoSpace", message="full"))


def settled(world: JobWorld, **spec: Any) -> AdapterDriver:
    driver = applied(world, **spec)
    driver.settle()
    return driver


def test_a_good_adapter_becomes_ready_with_digest_score_and_grade() -> None:
    driver = settled(JobWorld())
    status = driver.status
    assert (status["phase"], driver.condition("Ready")["status"]) == ("Ready", "True")
    assert status["artifact"]["digest"] == DIGEST
    assert status["artifact"]["uri"] == f"pvc://models/artifacts/shop/{NAME}/{'b' * 16}"
    assert (status["validation"]["overallScore"], status["validation"]["grade"]) == (0.87, "good")
    for kind in ("SourceResolved", "Merged", "Validated"):
        assert driver.condition(kind)["status"] == "True", kind
    assert driver.condition("Stalled")["status"] == "False"


def test_a_quantized_adapter_is_built_and_its_figures_are_those_of_the_job() -> None:
    quantized = {"quantization": "W4A16", "serving": {"weightsBytes": 113_098_656, "kvBytesPerToken": 23_040}}
    merged = json.loads(MERGED)
    end = End(0, json.dumps(merged | {"artifact": merged["artifact"] | quantized}))
    driver = settled(
        JobWorld(lambda stage, _: end if stage == "merge" else GOOD[stage]), quantization={"format": "W4A16"}
    )
    assert driver.status["phase"] == "Ready"
    assert driver.status["artifact"]["quantization"] == "W4A16"
    assert driver.status["artifact"]["serving"]["weightsBytes"] == 113_098_656
    job = next(job for job in driver.world.every(JOB) if "-m-" in job["metadata"]["name"])
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--quantization") + 1] == "w4a16"


def test_the_validate_job_asks_for_the_memory_that_fetch_has_found() -> None:
    driver = settled(JobWorld())
    job = next(job for job in driver.world.every(JOB) if "-v-" in job["metadata"]["name"])
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] == str(5 << 30)


def test_a_settled_adapter_costs_no_write() -> None:
    driver = settled(JobWorld())
    before = len(driver.world.writes)
    for _ in range(10):
        asyncio.run(driver.step())
        driver.world.tick(60)
    assert len(driver.world.writes) == before


def test_nothing_of_the_users_object_is_written() -> None:
    driver = settled(JobWorld())
    stored = driver.world.peek(ADAPTER, NAME)
    assert stored is not None
    assert stored["spec"] == adapter()["spec"]
    assert "annotations" not in stored["metadata"]
    assert "labels" not in stored["metadata"]
    assert "finalizers" not in stored["metadata"]


@pytest.mark.parametrize(
    ("ends", "phase", "reason", "stalled"),
    [
        pytest.param({"merge": End(2, WRONG_BASE)}, "Failed", "WrongBase", "True", id="a refused merge fails with the Job's own reason"),
        pytest.param({"merge": End(2, WRONG_BASE, fetch=True)}, "Failed", "WrongBase", "True", id="a refused fetch too"),
        pytest.param({"validate": End(3, GATES_FAILED)}, "Rejected", "GatesFailed", "True", id="failed gates reject"),
        pytest.param({"merge": End(0, "no json")}, "Failed", "BadResult", "True", id="a good exit without a result is told plainly"),
        pytest.param({"merge": End(143, job="DeadlineExceeded")}, "Failed", "DeadlineExceeded", "True", id="a Job beyond its time"),
        pytest.param({"merge": FULL_DISK}, "Failed", "RetriesSpent", "True", id="a disk that stays full"),
        pytest.param({"merge": End(137, reason="OOMKilled")}, "Failed", "RetriesSpent", "True", id="memory that never suffices"),
    ],
)  # fmt: skip
def test_bad_ends(ends: dict[str, End], phase: str, reason: str, stalled: str) -> None:
    driver = settled(JobWorld(lambda stage, _: {**GOOD, **ends}[stage]))
    assert (driver.status["phase"], driver.condition("Ready")["reason"]) == (phase, reason)
    assert driver.condition("Stalled")["status"] == stalled
    assert any(note.type == "Warning" for note in driver.notes)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(FULL_DISK, id="a full disk"),
        pytest.param(End(143), id="a drained node"),
        pytest.param(End(0, evicted=True, job="x"), id="an evicted pod"),
    ],
)
def test_an_infrastructure_failure_is_tried_again_after_a_pause(end: End) -> None:
    driver = settled(JobWorld(lambda stage, attempt: end if stage == "merge" and attempt == 1 else GOOD[stage]))
    assert driver.status["phase"] == "Ready"
    assert driver.status["jobs"]["merge"]["attempt"] == 2


def test_an_oom_kill_doubles_the_memory_and_takes_fetchs_figure_into_account() -> None:
    driver = settled(
        JobWorld(
            lambda stage, attempt: End(137, reason="OOMKilled") if stage == "merge" and attempt < 3 else GOOD[stage]
        )
    )
    memories = [memory_of(job) for job in driver.world.every(JOB) if "-m-" in job["metadata"]["name"]]
    assert memories == [2 << 30, 4 << 30, 8 << 30]
    assert driver.status["phase"] == "Ready"


def memory_of(job: dict[str, Any]) -> int:
    return int(job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"])


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(End(0, WARNED), id="the Job was told to warn and says so"),
        pytest.param(End(3, GATES_FAILED), id="the Job of an earlier operator was not told"),
    ],
)
def test_gates_that_only_warn_let_it_serve(end: End) -> None:
    world = JobWorld(lambda stage, _: {**GOOD, "validate": end}[stage])
    driver = settled(world, validation={"mode": "Basic", "gates": {"basis": "Point", "blockOnPoorQuality": False}})
    assert (driver.status["phase"], driver.condition("Ready")["reason"]) == ("Ready", "QualityWarning")
    assert driver.condition("Validated")["status"] == "False"
    assert "gate safety FAIL: observed 0.5, threshold 0.95" in driver.condition("Ready")["message"]


def test_rejected_and_failed_are_told_apart_and_a_rejected_model_keeps_its_evidence() -> None:
    driver = settled(JobWorld(lambda stage, _: {**GOOD, "validate": End(3, GATES_FAILED)}[stage]))
    status = driver.status
    assert status["phase"] == "Rejected"
    assert driver.condition("Merged")["status"] == "True"
    assert driver.condition("Validated")["reason"] == "GatesFailed"
    assert status["validation"]["gates"][0]["name"] == "safety"
    assert status["validation"]["reportUri"].startswith(f"{status['artifact']['uri']}/validation/v-")
    bad_suite = said("Refused", reason="InvalidSuite", message="own.jsonl, line 3: field 'answer': expected a number")
    crashed = settled(JobWorld(lambda stage, _: {**GOOD, "validate": End(2, bad_suite)}[stage]))
    assert (crashed.status["phase"], crashed.condition("Ready")["reason"]) == ("Failed", "InvalidSuite")
    assert "own.jsonl, line 3: field 'answer'" in crashed.condition("Ready")["message"]
    assert "validation" not in crashed.status


def test_every_dimension_with_its_interval_and_the_advice_stand_in_status() -> None:
    validation = settled(JobWorld()).status["validation"]
    assert validation["dimensions"] == {"basic": {"score": 0.9, "ci95": [0.8, 0.95], "n": 63}}
    assert validation["recommendations"] == ["SlowerThanBase"]
    assert validation["mode"] == "Basic"
    assert "reportPath" not in validation


def test_suites_of_ones_own_reach_the_validate_job() -> None:
    world = JobWorld()
    suite(world, "house-rules.jsonl")
    suites = [*OWN_SUITE["suites"], {"pvc": {"claimName": "models", "path": "suites"}}]
    driver = settled(world, validation=OWN_SUITE | {"suites": suites})
    assert driver.status["phase"] == "Ready"
    job = next(job for job in driver.world.every(JOB) if "-v-" in job["metadata"]["name"])
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [after for word, after in itertools.pairwise(arguments) if word == "--suite"] == [
        "/suites/own",
        "/claims/models/suites",
    ]


def validate_jobs(driver: AdapterDriver) -> list[str]:
    return [name for job in driver.world.every(JOB) if "-v-" in (name := str(job["metadata"]["name"]))]


@pytest.mark.parametrize(
    ("keys", "words"),
    [(None, "ConfigMap own is not in namespace shop"), (["README.md"], "has no key that ends in .jsonl")],
    ids=["a ConfigMap that is not there", "a ConfigMap without a suite"],
)
def test_a_suite_that_is_missing_is_named_waited_for_and_heals_by_itself(keys: list[str] | None, words: str) -> None:
    world = JobWorld()
    if keys is not None:
        suite(world, *keys)
    driver = applied(world, validation=OWN_SUITE)
    driver.settle(seconds=60)
    ready = driver.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "SuiteNotFound")
    assert words in ready["message"]
    assert driver.condition("Stalled")["status"] == "False"
    assert driver.condition("Merged")["status"] == "True"
    assert validate_jobs(driver) == []
    suite(world, "own.jsonl")
    driver.settle()
    assert driver.status["phase"] == "Ready"
    assert driver.status["jobs"]["validate"]["attempt"] == 1


def test_waiting_for_a_suite_writes_once() -> None:
    driver = applied(JobWorld(), validation=OWN_SUITE)
    driver.settle(seconds=60)
    writes = len(driver.world.writes)
    driver.settle(seconds=120)
    assert driver.condition("Ready")["reason"] == "SuiteNotFound"
    assert len(driver.world.writes) == writes


def test_a_suite_that_went_away_before_the_job_saw_it_is_waited_for_too() -> None:
    world = JobWorld()

    def ends(stage: str, attempt: int) -> End:
        if stage == "validate" and attempt == 1:
            world.remove(CONFIG_MAP, "own")
            return End(2, NO_SUITE)
        return GOOD[stage]

    world.ends = ends
    suite(world, "own.jsonl")
    driver = applied(world, validation=OWN_SUITE)
    driver.settle(seconds=60)
    assert (driver.condition("Ready")["reason"], driver.condition("Stalled")["status"]) == ("SuiteNotFound", "False")
    suite(world, "own.jsonl")
    driver.settle()
    assert driver.status["phase"] == "Ready"
    assert driver.status["jobs"]["validate"]["attempt"] == 2


def test_a_suite_that_only_the_job_misses_is_a_refusal_and_starts_no_second_job() -> None:
    world = JobWorld(lambda stage, _: End(2, NO_SUITE) if stage == "validate" else GOOD[stage])
    suite(world, "own.jsonl")
    driver = settled(world, validation=OWN_SUITE)
    assert (driver.status["phase"], driver.condition("Stalled")["status"]) == ("Failed", "True")
    assert len(validate_jobs(driver)) == 1


def test_a_suites_claim_that_is_missing_is_named() -> None:
    suites = [{"pvc": {"claimName": "suites", "path": "own.jsonl"}}]
    driver = applied(JobWorld(), validation={"mode": "Basic", "gates": {"basis": "Point"}, "suites": suites})
    driver.settle(seconds=30)
    assert driver.condition("Ready")["reason"] == "ClaimNotFound"
    assert "PersistentVolumeClaim suites" in driver.condition("Ready")["message"]


def test_a_missing_claim_is_named_and_heals() -> None:
    world = JobWorld()
    world.remove(CLAIM, "models")
    driver = applied(world)
    driver.settle(seconds=30)
    assert driver.condition("Ready")["reason"] == "ClaimNotFound"
    assert "models" in driver.condition("Ready")["message"]
    claim(world, "ReadWriteMany")
    driver.settle()
    assert driver.status["phase"] == "Ready"


def test_a_claim_that_one_pod_alone_may_use_is_refused() -> None:
    world = JobWorld()
    claim(world, "ReadWriteOncePod")
    driver = settled(world)
    assert driver.condition("Ready")["reason"] == "VolumeNotShareable"


def test_an_image_that_cannot_be_pulled_is_told_and_heals() -> None:
    world = JobWorld()
    world.waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    driver = applied(world)
    driver.settle(seconds=20)
    assert driver.condition("Ready")["reason"] == "ImageNotAvailable"
    assert "not found" in driver.condition("Ready")["message"]
    world.waiting = None
    driver.settle()
    assert driver.status["phase"] == "Ready"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"base": {"source": {"huggingFace": {"repo": "a/b"}}}}, "spec.base.source"),
    ],
    ids=["a remote base"],
)
def test_what_is_not_built_yet_is_named_and_nothing_starts(spec: dict[str, Any], field: str) -> None:
    driver = settled(JobWorld(), **spec)
    ready = driver.condition("Ready")
    assert (ready["reason"], driver.condition("Stalled")["status"]) == ("NotSupportedYet", "True")
    assert field in ready["message"]
    assert driver.world.every(JOB) == []


def several(*weights: float) -> list[dict[str, Any]]:
    """Adapters as a person lists them."""
    return [
        {"name": f"a{place}", "weight": weight, "source": {"pvc": {"claimName": "models", "path": f"adapters/{place}"}}}
        for place, weight in enumerate(weights)
    ]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"merge": {"strategy": "SLERP"}}, "spec.adapters"),
        ({"merge": {"strategy": "SLERP"}, "adapters": several(1, 1, 1)}, "spec.adapters"),
        ({"merge": {"strategy": "Linear"}, "adapters": several(0.5, -0.5)}, "spec.adapters"),
        ({"merge": {"strategy": "TIES", "density": 0}, "adapters": several(1, 1)}, "spec.merge.density"),
        ({"merge": {"strategy": "DARELinear", "density": 0}}, "spec.merge.density"),
    ],
    ids=[
        "SLERP between one adapter and nothing",
        "SLERP between three adapters",
        "Linear with weights that cancel",
        "TIES that keeps nothing",
        "DARE that keeps nothing",
    ],
)
def test_a_recipe_that_no_merge_can_follow_is_invalid_and_nothing_starts(spec: dict[str, Any], field: str) -> None:
    driver = settled(JobWorld(), **spec)
    ready = driver.condition("Ready")
    assert (ready["reason"], driver.condition("Stalled")["status"]) == ("Invalid", "True")
    assert field in ready["message"]
    assert driver.world.every(JOB) == []


@pytest.mark.parametrize("strategy", ["Linear", "SLERP", "TaskArithmetic", "TIES", "DARELinear", "DARETIES"])
def test_every_strategy_of_several_adapters_becomes_ready(strategy: str) -> None:
    driver = settled(JobWorld(), merge={"strategy": strategy}, adapters=several(0.7, 0.3))
    assert driver.condition("Ready")["status"] == "True"


def test_an_unreadable_spec_is_invalid_and_names_the_field() -> None:
    driver = settled(JobWorld(), validation={"mode": "Fast"})
    assert driver.condition("Ready")["reason"] == "Invalid"
    assert "spec.validation.mode" in driver.condition("Ready")["message"]


def test_a_foreign_job_of_our_name_is_never_adopted() -> None:
    world = JobWorld()
    driver = settled(world)
    name = driver.status["jobs"]["merge"]["name"]
    other = JobWorld()
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    other.put(JOB, {"metadata": {"name": name}, "spec": {}, "status": done})
    other.put(ADAPTER, {**adapter(), "metadata": copy.deepcopy((world.peek(ADAPTER, NAME) or {})["metadata"])})
    stranger = AdapterDriver(other)
    stranger.settle(seconds=30)
    assert stranger.condition("Ready")["reason"] == "NameTaken"


def test_other_validation_fields_validate_again_without_merging_again() -> None:
    driver = settled(JobWorld())
    driver.world.edit(ADAPTER, NAME, lambda obj: obj["spec"]["validation"]["gates"].update(minScore=0.5))
    driver.settle()
    names = [job["metadata"]["name"] for job in driver.world.every(JOB)]
    assert (sum("-m-" in name for name in names), sum("-v-" in name for name in names)) == (1, 2)
    assert driver.status["observedGeneration"] == 2
    assert driver.status["phase"] == "Ready"
    assert driver.status["effective"]["validation"]["minScore"] == 0.5
    key = driver.status["jobs"]["validate"]["key"]
    assert driver.status["validation"]["reportUri"].endswith(f"/validation/v-{key}.json")


def test_while_it_is_validated_again_no_old_score_stands_beside_the_new_gates() -> None:
    driver = settled(JobWorld())
    driver.world.edit(ADAPTER, NAME, lambda obj: obj["spec"]["validation"].update(mode="Standard"))
    asyncio.run(driver.step())
    assert driver.status["phase"] == "Validating"
    assert "validation" not in driver.status
    assert driver.condition("Merged")["status"] == "True"


def test_going_back_to_earlier_validation_fields_validates_once_more() -> None:
    driver = settled(JobWorld())
    first = driver.status["validation"]
    driver.world.edit(ADAPTER, NAME, lambda obj: obj["spec"]["validation"].update(mode="Standard"))
    driver.settle()
    driver.world.edit(ADAPTER, NAME, lambda obj: obj["spec"]["validation"].update(mode="Basic"))
    driver.settle()
    assert (driver.status["phase"], driver.status["validation"]) == ("Ready", first)


def test_mode_none_needs_no_validate_job() -> None:
    driver = settled(JobWorld(), validation={"mode": "None"})
    assert driver.condition("Ready")["status"] == "True"
    assert (driver.condition("Validated")["status"], driver.condition("Validated")["reason"]) == (
        "Unknown",
        "ValidationDisabled",
    )
    assert not any("-v-" in job["metadata"]["name"] for job in driver.world.every(JOB))


def test_a_retry_request_tries_a_failed_merge_once_more_and_is_done_once() -> None:
    broken = True
    driver = settled(JobWorld(lambda stage, _: End(2, WRONG_BASE) if broken and stage == "merge" else GOOD[stage]))
    assert driver.status["phase"] == "Failed"
    broken = False
    driver.world.edit(ADAPTER, NAME, lambda obj: obj["metadata"].update(annotations={"loraops.dev/retry": "1"}))
    driver.settle()
    assert driver.status["phase"] == "Ready"
    assert driver.status["jobs"]["merge"]["attempt"] == 2
    assert driver.status["lastRequests"]["retry"]["value"] == "1"


def test_an_edit_of_the_job_settings_after_a_failure_tries_again() -> None:
    driver = settled(
        JobWorld(lambda stage, attempt: End(2, WRONG_BASE) if attempt == 1 and stage == "merge" else GOOD[stage])
    )
    driver.world.edit(ADAPTER, NAME, lambda obj: obj["spec"]["job"]["merge"].update(timeoutSeconds=60))
    driver.settle()
    assert driver.status["phase"] == "Ready"


def test_suspend_stops_the_running_job_and_resuming_goes_on() -> None:
    driver = applied(JobWorld())
    asyncio.run(driver.step())
    driver.world.tick()
    driver.world.edit(ADAPTER, NAME, lambda obj: obj["spec"].update(suspend=True))
    driver.settle()
    assert (driver.status["phase"], driver.world.every(JOB)) == ("Suspended", [])
    driver.world.edit(ADAPTER, NAME, lambda obj: obj["spec"].update(suspend=False))
    driver.settle()
    assert driver.status["phase"] == "Ready"


def test_a_second_merge_waits_for_the_slot_of_its_node_pool() -> None:
    world = JobWorld()
    labels = {"app.kubernetes.io/component": "merge"}
    owner = [{"uid": "someone-else", "controller": True, "kind": "LoRAAdapter", "name": "other"}]
    spec = {"template": {"spec": {}}}
    world.put(
        JOB, {"metadata": {"name": "other-m-1", "labels": labels, "ownerReferences": owner}, "spec": spec, "status": {}}
    )
    world.waiting = {"running": {}}  # the other one never ends
    driver = applied(world)
    driver.settle(seconds=20)
    assert driver.condition("Ready")["reason"] == "WaitingForSlot"
    world.remove(JOB, "other-m-1")
    world.waiting = None
    driver.settle()
    assert driver.status["phase"] == "Ready"


def other_merge(world: JobWorld, name: str, **pod: Any) -> None:
    """Somebody else's merge, which never ends."""
    world.put(
        JOB,
        {
            "metadata": {
                "name": name,
                "labels": {"app.kubernetes.io/component": "merge"},
                "ownerReferences": [{"uid": name, "controller": True, "kind": "LoRAAdapter", "name": name}],
            },
            "spec": {"template": {"spec": pod}},
            "status": {},
        },
    )
    world.waiting = {"running": {}}


OURS, THEIRS = {"pool": "a"}, {"pool": "b"}


@pytest.mark.parametrize(
    ("running", "limit", "begins"),
    [
        pytest.param([OURS], 1, False, id="one merge at a time in a pool"),
        pytest.param([THEIRS, THEIRS, {}], 1, True, id="merges of other pools and of none take no slot"),
        pytest.param([OURS], 2, True, id="two at a time where the settings say two"),
        pytest.param([OURS, OURS], 2, False, id="but no third"),
    ],
)
def test_slots_are_counted_by_node_pool(running: list[dict[str, str]], limit: int, begins: bool) -> None:
    world = JobWorld()
    for number, selector in enumerate(running):
        other_merge(world, f"other-{number}-m-1", nodeSelector=selector)
    optimized = {"gpu_memory_gb": 8.0, "max_concurrent_merges": limit, "enable_mixed_precision": True}
    world.put(ADAPTER, adapter(job={"merge": {"nodeSelector": OURS}}))
    driver = AdapterDriver(world, resource_requirements={"rtx4070_optimized": optimized})
    driver.settle(seconds=20)
    ours = [job for job in world.every(JOB) if job["metadata"]["name"].startswith(f"{NAME}-m-")]
    assert len(ours) == begins
    assert (driver.condition("Ready")["reason"] == "WaitingForSlot") != begins


def test_an_artifact_to_be_deleted_waits_for_its_last_user() -> None:
    world = JobWorld(lambda stage, _: {**GOOD, "delete": End(0)}[stage])
    driver = settled(
        world, artifact={"store": {"pvc": {"claimName": "models", "path": "artifacts"}}, "retain": "Delete"}
    )
    assert (world.peek(ADAPTER, NAME) or {})["metadata"]["finalizers"] == ["loraops.dev/finalizer"]
    world.put(
        LORA_DEPLOYMENT, {"metadata": {"name": "fin"}, "spec": {}, "status": {"stable": {"artifactDigest": DIGEST}}}
    )
    world.edit(ADAPTER, NAME, lambda obj: obj["metadata"].update(deletionTimestamp="2026-01-01T12:00:00Z"))
    driver.settle(seconds=90)
    assert driver.condition("Ready")["reason"] == "ArtifactInUse"
    world.remove(LORA_DEPLOYMENT, "fin")
    driver.settle()
    assert world.peek(ADAPTER, NAME) is None


SCENARIOS: dict[str, dict[str, End]] = {
    "a good adapter": {},
    "a wrong base": {"merge": End(2, WRONG_BASE)},
    "failed gates": {"validate": End(3, GATES_FAILED)},
    "a first attempt that runs out of memory": {"merge-1": End(137, reason="OOMKilled")},
}


def final_state(driver: AdapterDriver) -> dict[str, Any]:
    status = copy.deepcopy(driver.status)
    for condition in status.get("conditions", []):
        condition.pop("lastTransitionTime")
        condition["message"] = condition["message"].split("; attempt")[0]
    for record in status.get("jobs", {}).values():
        record.pop("nextAttemptAt", None)
    return {"status": status, "jobs": sorted(job["metadata"]["name"] for job in driver.world.every(JOB))}


def play(scenario: dict[str, End], *, crash_at: tuple[int, str] | None) -> AdapterDriver:
    world = JobWorld(lambda stage, attempt: {**GOOD, **scenario}.get(f"{stage}-{attempt}", {**GOOD, **scenario}[stage]))
    world.crash_at = crash_at
    return settled(world)


@pytest.mark.parametrize("name", SCENARIOS, ids=str)
def test_a_crash_at_any_write_ends_in_the_same_state(name: str) -> None:
    undisturbed = play(SCENARIOS[name], crash_at=None)
    wanted = final_state(undisturbed)
    for k in range(1, len(undisturbed.world.writes) + 1):
        for moment in ("before", "after"):
            driver = play(SCENARIOS[name], crash_at=(k, moment))
            assert driver.world.crash_at is None, f"write {k} was never reached"
            assert final_state(driver) == wanted, f"killed {moment} write {k}: {undisturbed.world.writes[k - 1]}"


def test_the_messages_used_here_are_within_the_limit_of_a_termination_message() -> None:
    assert all(len(text.encode()) <= 3500 for text in (FETCHED, MERGED, GATES_FAILED))

"""Manifests of the Jobs, whole: what the kubelet gets is what docs/job-contract.md says."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_job.merge.commands import RESOURCE_WORDS
from lora_operator.api.adapter import Adapter, Quantization, parse_adapter
from lora_operator.core.adapter.effective import Defaults, effective_validation
from lora_operator.core.build.job import JobSettings, build_delete_job, build_merge_job, build_validate_job
from tests.fakes.job_world import adapter as resource

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = JobSettings(image="localhost/lora-job:1", pull_policy="IfNotPresent", run_as_user=65532)
DEFAULTS = Defaults(
    weights={"basic": 0.4, "domain": 0.3, "safety": 0.2, "performance": 0.1},
    test_query_count=20,
    benchmark_iterations=10,
    min_score=0.8,
    min_safety_score=0.95,
    block_on_poor_quality=True,
)
SPECIAL = {
    "merge": {
        "strategy": "Linear",
        "dtype": "Float32",
        "allowUnverifiedBase": True,
        "allowChatTemplateDigest": "sha256:" + "c" * 64,
    },
    "quantization": {"format": "W4A16"},
    "job": {
        "queueName": "team-a",
        "serviceAccountName": "jobs",
        "merge": {
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "registry"}],
            "env": [{"name": "A", "value": "b"}],
            "resources": {"limits": {"memory": "9Gi", "nvidia.com/gpu": 1}},
            "timeoutSeconds": 60,
        },
    },
}


COMBINED: dict[str, Any] = {
    "adapters": [
        {"name": "main", "weight": 0.7, "source": {"pvc": {"claimName": "models", "path": "adapters/v1"}}},
        {"name": "style", "weight": -0.25, "source": {"pvc": {"claimName": "shared", "path": "style"}}},
    ],
    "merge": {"strategy": "TIES", "scale": 0.5, "t": 0.25, "density": 0.2, "seed": 9007199254740991},
}


RECIPE = ("--strategy", "--scale", "--t", "--density", "--seed")


def parsed(**spec: Any) -> Adapter:
    raw = resource(**spec)
    raw["metadata"] |= {"namespace": "shop", "uid": "uid-1"}
    return parse_adapter(raw)


OWN_SUITES = {
    "validation": {
        "mode": "Standard",
        "gates": {"basis": "LowerBound", "blockOnPoorQuality": False},
        "suites": [
            {"configMap": {"name": "house-rules"}},
            {"pvc": {"claimName": "suites", "path": "tw/own.jsonl"}},
            {"pvc": {"claimName": "models", "path": "suites"}},
        ],
    }
}


def validate_job(**spec: Any) -> dict[str, Any]:
    adapter = parsed(**spec)
    return build_validate_job(
        adapter,
        name="fin-v1-v-0a1b2c3d-1",
        memory=3 << 30,
        artifact_path="artifacts/shop/fin-v1/abc",
        validation=effective_validation(adapter, defaults=DEFAULTS),
        validation_id="v-0a1b2c3d",
        settings=SETTINGS,
    )


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "job-merge": lambda: build_merge_job(parsed(), name="fin-v1-m-0a1b2c3d-1", memory=2 << 30, settings=SETTINGS),
    "job-merge-special": lambda: build_merge_job(
        parsed(**SPECIAL), name="fin-v1-m-0a1b2c3d-2", memory=4 << 30, settings=SETTINGS
    ),
    "job-merge-combined": lambda: build_merge_job(
        parsed(**COMBINED), name="fin-v1-m-0a1b2c3d-1", memory=2 << 30, settings=SETTINGS
    ),
    "job-validate": validate_job,
    "job-validate-suites": lambda: validate_job(**OWN_SUITES),
    "job-delete": lambda: build_delete_job(
        parsed(), name="fin-v1-d-0a1b2c3d-1", artifact_path="artifacts/x", settings=SETTINGS
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    text = json.dumps(CASES[name](), indent=1, sort_keys=True) + "\n"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_every_pod_of_a_job_is_restricted_and_has_no_token(name: str) -> None:
    spec = CASES[name]()["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_sources_are_mounted_read_only_and_the_store_is_not() -> None:
    spec = CASES["job-merge"]()["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts == {"/claims/models": True, "/store": False, "/work": False}


@pytest.mark.parametrize(
    ("strategy", "word"),
    [
        ("Linear", "linear"),
        ("SLERP", "slerp"),
        ("TaskArithmetic", "task_arithmetic"),
        ("TIES", "ties"),
        ("DARELinear", "dare_linear"),
        ("DARETIES", "dare_ties"),
    ],
)
def test_the_merge_command_says_the_whole_recipe(strategy: str, word: str) -> None:
    job = build_merge_job(
        parsed(**COMBINED | {"merge": {**COMBINED["merge"], "strategy": strategy}}),
        name="x",
        memory=1,
        settings=SETTINGS,
    )
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [arguments[place + 1] for place, argument in enumerate(arguments) if argument == "--adapter"] == [
        "/claims/models/adapters/v1=0.7",
        "/claims/shared/style=-0.25",
    ]
    said = {option: arguments[arguments.index(option) + 1] for option in RECIPE}
    assert said == dict(zip(RECIPE, (word, "0.5", "0.25", "0.2", "9007199254740991"), strict=True))


def test_suites_of_ones_own_are_mounted_read_only_and_named_to_the_job() -> None:
    spec = CASES["job-validate-suites"]()["spec"]["template"]["spec"]
    container = spec["containers"][0]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounts == {
        "/claims/models": True,
        "/claims/suites": True,
        "/suites/house-rules": True,
        "/store": False,
        "/work": False,
    }
    arguments = container["args"]
    given = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--suite"]
    assert given == ["/suites/house-rules", "/claims/suites/tw/own.jsonl", "/claims/models/suites"]


def test_one_config_map_named_twice_is_one_volume() -> None:
    twice = {"validation": {"mode": "Basic", "suites": [{"configMap": {"name": "own"}}] * 2}}
    spec = validate_job(**twice)["spec"]["template"]["spec"]
    assert [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume] == ["own"]


@pytest.mark.parametrize("wanted", list(Quantization), ids=str)
def test_a_quantization_comes_back_from_the_job_as_it_was_asked_for(wanted: Quantization) -> None:
    job = build_merge_job(parsed(quantization={"format": str(wanted)}), name="a", memory=2 << 30, settings=SETTINGS)
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert RESOURCE_WORDS[arguments[arguments.index("--quantization") + 1]] == str(wanted)


def test_merge_jobs_do_not_see_suites() -> None:
    job = build_merge_job(parsed(**OWN_SUITES), name="fin-v1-m-0a1b2c3d-1", memory=2 << 30, settings=SETTINGS)
    assert "house-rules" not in json.dumps(job)


@pytest.mark.parametrize(("block", "told"), [(True, False), (False, True)], ids=["blocks", "only warns"])
def test_the_job_is_told_when_poor_quality_shall_only_warn(block: bool, told: bool) -> None:
    job = validate_job(validation={"mode": "Basic", "gates": {"blockOnPoorQuality": block}})
    assert ("--warn-on-poor-quality" in job["spec"]["template"]["spec"]["containers"][0]["args"]) is told

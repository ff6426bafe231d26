"""Manifests of the Jobs that docs/job-contract.md describes: pure, golden-tested.

One Job per attempt, never restarted by Kubernetes: the operator decides about the next attempt from exit code and termination message.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_operator.api.adapter import Adapter, Dtype, JobSpec, Quantization, Strategy, SuiteSource, ValidationMode
from lora_operator.api.kinds import ADAPTER, JOB
from lora_operator.api.names import child_labels
from lora_operator.api.source import Source
from lora_operator.core.adapter.effective import EffectiveValidation
from lora_operator.core.build.single_node import on_claims_node

__all__ = ["JobSettings", "build_delete_job", "build_merge_job", "build_validate_job"]

STRATEGIES = {
    Strategy.LINEAR: "linear",
    Strategy.SLERP: "slerp",
    Strategy.TASK_ARITHMETIC: "task_arithmetic",
    Strategy.TIES: "ties",
    Strategy.DARE_LINEAR: "dare_linear",
    Strategy.DARE_TIES: "dare_ties",
}
DTYPES = {Dtype.AUTO: "auto", Dtype.BFLOAT16: "bfloat16", Dtype.FLOAT16: "float16", Dtype.FLOAT32: "float32"}
QUANTIZATIONS = {
    Quantization.NONE: "none",
    Quantization.BNB_INT8: "bnb-int8",
    Quantization.BNB_NF4: "bnb-nf4",
    Quantization.FP8_DYNAMIC: "fp8-dynamic",
    Quantization.W4A16: "w4a16",
}
CPU_REQUEST = "500m"


@dataclass(frozen=True)
class JobSettings:
    """What the installation and the namespace's claims decide about Jobs."""

    image: str
    pull_policy: str
    run_as_user: int
    single_node_claims: Collection[str] = ()  # ReadWriteOnce: the pod must run where they are attached


def build_merge_job(adapter: Adapter, *, name: str, memory: int, settings: JobSettings) -> dict[str, Any]:
    """Init container `fetch`, then `merge`. `memory` in bytes: request and limit."""
    store = f"/store/{adapter.store.path}".rstrip("/")
    fetch = [
        "fetch",
        *_source_arguments(adapter),
        "--claims",
        "/claims",
        "--output",
        store,
        "--report",
        "/work/fetch.json",
    ]
    recipe = adapter.recipe
    # How much room the result needs; by default as much as the base.
    if recipe.dtype is not Dtype.AUTO:
        fetch += ["--dtype", DTYPES[recipe.dtype]]
    if recipe.quantization is not Quantization.NONE:
        fetch += ["--quantization", QUANTIZATIONS[recipe.quantization]]
    merge = ["merge", "--base", _path(recipe.base)]
    for item in recipe.adapters:
        merge += ["--adapter", f"{_path(item.source)}={item.weight}"]
    merge += ["--output-root", f"{store}/{adapter.namespace}/{adapter.name}", "--fetch-report", "/work/fetch.json"]
    merge += ["--strategy", STRATEGIES[recipe.strategy], "--dtype", DTYPES[recipe.dtype], "--scale", str(recipe.scale)]
    merge += ["--t", str(recipe.t), "--density", str(recipe.density), "--seed", str(recipe.seed)]
    merge += ["--quantization", QUANTIZATIONS[recipe.quantization], "--report", "/work/merge-report.json"]
    if recipe.allow_unverified_base:
        merge.append("--allow-unverified-base")
    if recipe.allow_chat_template_digest:
        merge += ["--allow-chat-template", recipe.allow_chat_template_digest.removeprefix("sha256:")]
    containers = {
        "initContainers": [
            _container("fetch", fetch, adapter=adapter, job=adapter.merge_job, memory=memory, settings=settings)
        ],
        "containers": [
            _container("merge", merge, adapter=adapter, job=adapter.merge_job, memory=memory, settings=settings)
        ],
    }
    return _job(adapter, name=name, component="merge", job=adapter.merge_job, containers=containers, settings=settings)


def build_validate_job(
    adapter: Adapter,
    *,
    name: str,
    memory: int,
    artifact_path: str,
    validation: EffectiveValidation,
    validation_id: str,
    settings: JobSettings,
) -> dict[str, Any]:
    """One container `validate`; `artifact_path` is relative to the store claim's root."""
    recipe, model = adapter.recipe, f"/store/{artifact_path}"
    arguments = ["validate", "--model", model, "--base", _path(recipe.base)]
    for item in recipe.adapters:
        arguments += ["--adapter", _path(item.source)]
    arguments += ["--mode", _mode(adapter.validation.mode), "--test-query-count", str(validation.test_query_count)]
    arguments += ["--iterations", str(validation.benchmark_iterations)]
    arguments += ["--weights", ",".join(f"{part}={weight}" for part, weight in validation.weights.items())]
    arguments += ["--min-score", str(validation.min_score), "--min-safety-score", str(validation.min_safety_score)]
    arguments += ["--gate-basis", "lower-bound" if validation.basis == "LowerBound" else "point"]
    if not validation.block_on_poor_quality:
        arguments.append("--warn-on-poor-quality")
    suites = adapter.validation.suites
    for suite in suites:
        arguments += ["--suite", _suite_path(suite)]
    arguments += ["--report", f"{model}/validation/{validation_id}.json"]
    container = _container(
        "validate",
        arguments,
        adapter=adapter,
        job=adapter.validate_job,
        memory=memory,
        settings=settings,
        suites=suites,
    )
    return _job(
        adapter,
        name=name,
        component="validate",
        job=adapter.validate_job,
        containers={"containers": [container]},
        settings=settings,
        suites=suites,
    )


def build_delete_job(adapter: Adapter, *, name: str, artifact_path: str, settings: JobSettings) -> dict[str, Any]:
    """Removes the artifact's directory, by one rename first, so that nobody reads half of it."""
    script = (
        "import os, shutil, sys; target = sys.argv[1]; doomed = target + '.deleting'; "
        "os.path.isdir(target) and os.rename(target, doomed); shutil.rmtree(doomed, ignore_errors=True)"
    )
    container = _container("delete", [], adapter=adapter, job=adapter.merge_job, memory=256 * 2**20, settings=settings)
    container["command"] = ["python", "-c", script, f"/store/{artifact_path}"]
    del container["args"]
    return _job(
        adapter,
        name=name,
        component="delete",
        job=adapter.merge_job,
        containers={"containers": [container]},
        settings=settings,
    )


def _mode(mode: ValidationMode) -> str:
    return str(mode).lower()


def _source_arguments(adapter: Adapter) -> list[str]:
    entries = [("base", "base", adapter.recipe.base)]
    entries += [(item.name, "adapter", item.source) for item in adapter.recipe.adapters]
    arguments: list[str] = []
    for name, role, source in entries:
        entry = {"name": name, "role": role, **source.raw} | ({"digest": source.digest} if source.digest else {})
        arguments += ["--source", json.dumps(entry, sort_keys=True, separators=(",", ":"))]
    return arguments


def _path(source: Source) -> str:
    if source.claim is None:
        raise ValueError(f"a {source.scheme} source has no path on a claim")
    return f"/claims/{source.claim.claim}/{source.claim.path}".rstrip("/")


def _suite_path(suite: SuiteSource) -> str:
    if suite.claim is None:
        return f"/suites/{suite.config_map}"
    return f"/claims/{suite.claim.claim}/{suite.claim.path}".rstrip("/")


def _claims(adapter: Adapter, suites: Sequence[SuiteSource]) -> list[str]:
    sources = [adapter.recipe.base, *(item.source for item in adapter.recipe.adapters)]
    places = [source.claim for source in sources] + [suite.claim for suite in suites]
    return sorted({place.claim for place in places if place is not None})


def _config_maps(suites: Sequence[SuiteSource]) -> list[str]:
    return sorted({suite.config_map for suite in suites if suite.config_map is not None})


def _container(
    name: str,
    arguments: list[str],
    *,
    adapter: Adapter,
    job: JobSpec,
    memory: int,
    settings: JobSettings,
    suites: Sequence[SuiteSource] = (),
) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [
        {"name": f"claim-{index}", "mountPath": f"/claims/{claim}", "readOnly": True}
        for index, claim in enumerate(_claims(adapter, suites))
    ]
    mounts += [
        {"name": f"suite-{index}", "mountPath": f"/suites/{config_map}", "readOnly": True}
        for index, config_map in enumerate(_config_maps(suites))
    ]
    mounts += [{"name": "store", "mountPath": "/store"}, {"name": "work", "mountPath": "/work"}]
    env = {
        "HOME": "/work",
        "TMPDIR": "/work",
        "USER": "lora",
        "XDG_CACHE_HOME": "/work/.cache",
        "HF_HOME": "/work/.cache/huggingface",
    }
    env["LORA_TERMINATION_LOG"] = "/dev/termination-log"
    if name != "fetch":
        env["HF_HUB_OFFLINE"] = "1"
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "args": arguments,
        "env": [{"name": key, "value": value} for key, value in env.items()] + [dict(item) for item in job.env],
        "resources": _resources(job.resources, memory=memory),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _resources(said: Mapping[str, Any], *, memory: int) -> dict[str, Any]:
    """What the spec says wins; memory that it does not say comes from the ladder."""
    limits = {"memory": str(memory)} | dict(said.get("limits", {}))
    requests = {"cpu": CPU_REQUEST, "memory": limits["memory"]} | dict(said.get("requests", {}))
    return {"limits": limits, "requests": requests}


def _job(
    adapter: Adapter,
    *,
    name: str,
    component: str,
    job: JobSpec,
    containers: Mapping[str, Any],
    settings: JobSettings,
    suites: Sequence[SuiteSource] = (),
) -> dict[str, Any]:
    labels = child_labels(instance=adapter.name, component=component, adapter=adapter.name)
    queue = {"kueue.x-k8s.io/queue-name": adapter.queue_name} if adapter.queue_name else {}
    volumes: list[dict[str, Any]] = [
        {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim}}
        for index, claim in enumerate(_claims(adapter, suites))
    ]
    # optional: a missing ConfigMap must not leave the pod waiting in silence; lora-job refuses the empty folder by name.
    volumes += [
        {"name": f"suite-{index}", "configMap": {"name": config_map, "optional": True}}
        for index, config_map in enumerate(_config_maps(suites))
    ]
    volumes += [
        {"name": "store", "persistentVolumeClaim": {"claimName": adapter.store.claim}},
        {"name": "work", "emptyDir": {}},
    ]
    user = settings.run_as_user
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": volumes,
        **containers,
    }
    if job.node_selector:
        pod["nodeSelector"] = dict(job.node_selector)
    if job.tolerations:
        pod["tolerations"] = [dict(item) for item in job.tolerations]
    if job.image_pull_secrets:
        pod["imagePullSecrets"] = [dict(item) for item in job.image_pull_secrets]
    if adapter.service_account:
        pod["serviceAccountName"] = adapter.service_account
    bound = {*_claims(adapter, suites), adapter.store.claim}.intersection(settings.single_node_claims)
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {
            "name": name,
            "namespace": adapter.namespace,
            "labels": labels | queue,
            "ownerReferences": [_owner(adapter)],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": job.timeout_seconds,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 3]}},
                ]
            },
            "template": on_claims_node({"metadata": {"labels": labels}, "spec": pod}, claims=bound),
        },
    }


def _owner(adapter: Adapter) -> dict[str, Any]:
    return {
        "apiVersion": ADAPTER.api_version,
        "kind": ADAPTER.kind,
        "name": adapter.name,
        "uid": adapter.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }

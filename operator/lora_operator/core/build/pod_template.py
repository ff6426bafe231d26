"""The serving pod of a revision: pure, golden-tested, built once and then frozen in the ControllerRevision.

    init: [copy] ► verify (digest of the model directory)     container: runtime
    SIGTERM ──► preStop sleep (endpoints leave the router) ──► runtime shutdown (streams finish) ──► SIGKILL at grace

Nothing descriptive of the custom resource enters here: an edited tag must never restart a model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_operator.api.deployment import RuntimeSpec
from lora_operator.api.names import FIELD_MANAGER, LABEL_IN_SERVICE
from lora_operator.core.build.labels import selector_of
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.profile import Profile
from lora_operator.core.build.single_node import on_claims_node

__all__ = ["Artifact", "PodSettings", "build_pod_template", "grace_seconds"]

PRE_STOP_SECONDS = 10
GRACE_MARGIN_SECONDS = 10
CACHE = "/cache"
PORT_NAME = "http"
_CACHE_ENV = {
    "HOME": CACHE,
    "USER": "lora",  # the uid has no account in most images
    "HF_HOME": CACHE,
    "HF_HUB_OFFLINE": "1",
    "TMPDIR": "/tmp",  # noqa: S108 (an emptyDir of the pod's own)
    "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
    "TRITON_CACHE_DIR": f"{CACHE}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
    "XDG_CACHE_HOME": f"{CACHE}/xdg/cache",
    "XDG_CONFIG_HOME": f"{CACHE}/xdg/config",
    "XDG_DATA_HOME": f"{CACHE}/xdg/data",
}
_PASSED_THROUGH = (
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "priorityClassName",
    "runtimeClassName",
    "imagePullSecrets",
)


@dataclass(frozen=True)
class Artifact:
    """Where the model lies and what it must be."""

    claim: str
    path: str
    digest: str
    quantization: str
    weights_bytes: int  # 0: unknown
    single_node: bool = False  # the claim is ReadWriteOnce: every pod runs where it is attached


@dataclass(frozen=True)
class PodSettings:
    """What the operator's own installation decides about serving pods."""

    operator_image: str
    operator_pull_policy: str
    run_as_user: int


def build_pod_template(
    owner: Owner,
    *,
    revision: str,
    runtime: RuntimeSpec,
    profile: Profile,
    artifact: Artifact,
    settings: PodSettings,
    max_model_len: int | None,
) -> dict[str, Any]:
    """`spec.template` of the revision's Deployment."""
    raw = runtime.raw
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds(drain=runtime.drain_seconds, shutdown=profile.shutdown_seconds),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.run_as_user,
            "runAsGroup": settings.run_as_user,
            "fsGroup": settings.run_as_user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": _init_containers(runtime=runtime, artifact=artifact, settings=settings),
        "containers": [_runtime(runtime=runtime, profile=profile, artifact=artifact, max_model_len=max_model_len)],
        "volumes": _volumes(runtime=runtime, profile=profile, artifact=artifact),
    }
    spec |= {key: raw[key] for key in _PASSED_THROUGH if raw.get(key)}
    # Ours win over the user's labels: the selectors hang on them.
    managed = {"app.kubernetes.io/managed-by": FIELD_MANAGER}  # by this label our watch selects pods on the server
    theirs = {key: value for key, value in (raw.get("podLabels") or {}).items() if key != LABEL_IN_SERVICE}
    labels = theirs | managed | selector_of(owner, revision=revision)
    metadata: dict[str, Any] = {"labels": labels}
    if raw.get("podAnnotations"):
        metadata["annotations"] = dict(raw["podAnnotations"])
    return on_claims_node({"metadata": metadata, "spec": spec}, claims=[artifact.claim] if artifact.single_node else ())


def grace_seconds(*, drain: int, shutdown: int) -> int:
    """Longer than preStop sleep + runtime shutdown + 5 s, and long enough for the longest stream that is waited for."""
    return PRE_STOP_SECONDS + max(drain, shutdown) + GRACE_MARGIN_SECONDS


def _init_containers(*, runtime: RuntimeSpec, artifact: Artifact, settings: PodSettings) -> list[dict[str, Any]]:
    verify = _init(
        "verify",
        settings=settings,
        command=["lora-job", "verify", model_path(runtime), "--digest", artifact.digest],
        mounts=[_model_mount(runtime, artifact)],
    )
    if runtime.local_copy_size is None:
        return [verify]
    source = {"name": "claim", "mountPath": "/source", "subPath": artifact.path, "readOnly": True}
    target = {"name": "model", "mountPath": model_path(runtime)}
    copy = _init(
        "copy",
        settings=settings,
        command=["cp", "--recursive", "--dereference", "/source/.", f"{model_path(runtime)}/"],
        mounts=[source, target],
    )
    return [copy, verify]


def _init(name: str, *, settings: PodSettings, command: Sequence[str], mounts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "image": settings.operator_image,
        "imagePullPolicy": settings.operator_pull_policy,
        "command": list(command),
        "env": [
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 (an emptyDir of the pod's own)
            {"name": "LORA_TERMINATION_LOG", "value": "/dev/termination-log"},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": _restricted(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }


def _runtime(
    *, runtime: RuntimeSpec, profile: Profile, artifact: Artifact, max_model_len: int | None
) -> dict[str, Any]:
    tokens = {
        "{modelPath}": model_path(runtime),
        "{servedModelName}": runtime.served_model_name,
        "{port}": str(profile.port),
        "{maxModelLen}": str(max_model_len or ""),
    }
    args = [*profile.args, *profile.quantization_args.get(artifact.quantization, ())]
    if max_model_len is not None:
        args += profile.max_model_len_args
    raw = runtime.raw
    container: dict[str, Any] = {
        "name": "runtime",
        "image": runtime.image or profile.image,
        "command": [_filled(word, tokens) for word in profile.command],
        "args": [*(_filled(word, tokens) for word in args), *runtime.args],
        "env": _env(profile=profile, tokens=tokens, own=raw.get("env") or ()),
        "ports": [{"name": PORT_NAME, "containerPort": profile.port, "protocol": "TCP"}],
        "resources": _resources(profile, said=raw.get("resources") or {}),
        "securityContext": _restricted(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        **_probes(profile, weights_bytes=artifact.weights_bytes),
        "volumeMounts": [
            _model_mount(runtime, artifact),
            {"name": "cache", "mountPath": CACHE},
            # A folder that must exist under HF_HOME before the runtime looks for cached models.
            {"name": "hub", "mountPath": f"{CACHE}/hub"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            *(raw.get("volumeMounts") or ()),
        ],
    }
    if profile.working_dir:
        container["workingDir"] = _filled(profile.working_dir, tokens)
    if raw.get("envFrom"):
        container["envFrom"] = list(raw["envFrom"])
    if raw.get("imagePullPolicy"):
        container["imagePullPolicy"] = raw["imagePullPolicy"]
    return container


def _resources(profile: Profile, *, said: Mapping[str, Any]) -> dict[str, Any]:
    """The user's, with the profile's requests where the user names neither request nor limit of that resource."""
    named = set(said.get("requests") or {}) | set(said.get("limits") or {})
    requests = {key: value for key, value in profile.requests.items() if key not in named}
    requests |= said.get("requests") or {}
    return dict(said) | ({"requests": requests} if requests else {})


def _filled(text: str, tokens: Mapping[str, str]) -> str:
    for token, value in tokens.items():
        text = text.replace(token, value)
    return text


def _env(*, profile: Profile, tokens: Mapping[str, str], own: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ours first, then the profile's, then the user's, who may override all but the offline switch."""
    named: dict[str, dict[str, Any]] = {key: {"name": key, "value": value} for key, value in _CACHE_ENV.items()}
    named |= {key: {"name": key, "value": _filled(value, tokens)} for key, value in profile.env.items()}
    named |= {str(entry["name"]): dict(entry) for entry in own if entry["name"] != "HF_HUB_OFFLINE"}
    return list(named.values())


def _probes(profile: Profile, *, weights_bytes: int) -> dict[str, Any]:
    """Startup gets time to load; readiness is quick; liveness is lazy, because killing a busy model helps nobody."""
    budget = profile.startup_seconds + math.ceil(weights_bytes / profile.load_bytes_per_second)
    ready = {"httpGet": {"path": profile.ready_path, "port": PORT_NAME, "scheme": "HTTP"}}
    live = {"httpGet": {"path": profile.live_path, "port": PORT_NAME, "scheme": "HTTP"}}
    return {
        "startupProbe": ready | {"periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": math.ceil(budget / 2)},
        "readinessProbe": ready | {"periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": live | {"periodSeconds": 20, "timeoutSeconds": 20, "failureThreshold": 6},
    }


def _volumes(*, runtime: RuntimeSpec, profile: Profile, artifact: Artifact) -> list[dict[str, Any]]:
    claim = {"name": "claim", "persistentVolumeClaim": {"claimName": artifact.claim, "readOnly": True}}
    local = [] if runtime.local_copy_size is None else [_empty("model", size=runtime.local_copy_size)]
    return [
        claim,
        *local,
        _empty("cache", size="8Gi"),
        _empty("hub", size="64Mi"),
        _empty("tmp", size="4Gi"),
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": profile.shm_size}},
        *(runtime.raw.get("volumes") or ()),
    ]


def _empty(name: str, *, size: str) -> dict[str, Any]:
    return {"name": name, "emptyDir": {"sizeLimit": size}}


def model_path(runtime: RuntimeSpec) -> str:
    """Where a serving pod sees its model; the last part is the name it answers to."""
    return f"/models/{runtime.served_model_name}"


def _model_mount(runtime: RuntimeSpec, artifact: Artifact) -> dict[str, Any]:
    if runtime.local_copy_size is None:
        return {"name": "claim", "mountPath": model_path(runtime), "subPath": artifact.path, "readOnly": True}
    return {"name": "model", "mountPath": model_path(runtime), "readOnly": True}


def _restricted() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }

"""The options of `loractl workflow` as parts of both resources' specs. Pure.

Words are those of `lora-job` (bnb-nf4, dare_ties), so that one vocabulary serves a workstation and a cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lora_client.errors import Invalid
from lora_client.sources import LocalDirectory, parse_source
from lora_client.workflow import AdapterSource, WorkflowRequest, build_adapter, build_deployment

__all__ = ["Asked", "Mode", "Quantization", "Rollout", "Strategy", "build_manifests", "build_request"]


class Strategy(StrEnum):
    """--merge-strategy."""

    LINEAR = "linear"
    SLERP = "slerp"
    TASK_ARITHMETIC = "task_arithmetic"
    TIES = "ties"
    DARE_LINEAR = "dare_linear"
    DARE_TIES = "dare_ties"


class Quantization(StrEnum):
    """--quantization."""

    NONE = "none"
    BNB_NF4 = "bnb-nf4"
    BNB_INT8 = "bnb-int8"
    FP8_DYNAMIC = "fp8-dynamic"
    W4A16 = "w4a16"


class Mode(StrEnum):
    """--validation-mode."""

    NONE = "none"
    BASIC = "basic"
    STANDARD = "standard"
    COMPREHENSIVE = "comprehensive"


class Rollout(StrEnum):
    """--rollout."""

    REPLACE = "replace"
    BLUE_GREEN = "blue-green"
    CANARY = "canary"
    AB_TEST = "ab-test"


STRATEGIES = {
    Strategy.LINEAR: "Linear",
    Strategy.SLERP: "SLERP",
    Strategy.TASK_ARITHMETIC: "TaskArithmetic",
    Strategy.TIES: "TIES",
    Strategy.DARE_LINEAR: "DARELinear",
    Strategy.DARE_TIES: "DARETIES",
}
QUANTIZATIONS = {
    Quantization.NONE: "None",
    Quantization.BNB_NF4: "BnbNF4",
    Quantization.BNB_INT8: "BnbInt8",
    Quantization.FP8_DYNAMIC: "FP8Dynamic",
    Quantization.W4A16: "W4A16",
}
ROLLOUTS = {
    Rollout.REPLACE: "Replace",
    Rollout.BLUE_GREEN: "BlueGreen",
    Rollout.CANARY: "Canary",
    Rollout.AB_TEST: "ABTest",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options as they were typed; None and empty mean not said."""

    name: str
    base: str
    adapters: Sequence[str]
    store: str
    deployment: str
    merge_strategy: Strategy | None
    quantization: Quantization | None
    validation_mode: Mode | None
    min_score: float | None
    min_safety_score: float | None
    deploy: bool
    rollout: Rollout | None
    profile: str
    image: str
    gpus: int
    replicas: int | None
    gateway: str
    hosts: Sequence[str]
    ingress_class: str
    target_env: str
    force_deploy: bool


def build_request(asked: Asked) -> WorkflowRequest:
    """The request for lora_client.

    Raises:
        Invalid: an option cannot be understood, or two exclude each other.
    """
    gates = {"minScore": asked.min_score, "minSafetyScore": asked.min_safety_score}
    said = {key: value for key, value in gates.items() if value is not None}
    validation = ({"mode": asked.validation_mode.capitalize()} if asked.validation_mode else {}) | (
        {"gates": said} if said else {}
    )
    return WorkflowRequest(
        name=asked.name,
        base=asked.base,
        adapters=_adapters(asked.adapters),
        store=asked.store,
        deployment=asked.deployment or None,
        runtime=_runtime(asked),
        traffic=_traffic(asked),
        deploy=asked.deploy,
        merge={"strategy": STRATEGIES[asked.merge_strategy]} if asked.merge_strategy else None,
        quantization={"format": QUANTIZATIONS[asked.quantization]} if asked.quantization else None,
        validation=validation or None,
        replicas=asked.replicas,
        strategy={"type": ROLLOUTS[asked.rollout]} if asked.rollout else None,
        target_environment=asked.target_env or None,
        force_deploy=True if asked.force_deploy else None,
    )


def build_manifests(request: WorkflowRequest, *, workflow_id: str, namespace: str) -> list[dict[str, Any]]:
    """Both objects of a request, for --dry-run: nothing is copied, so local directories cannot be shown."""
    parsed = [parse_source(request.base, where="--base")]
    parsed += [parse_source(one.source, where="--adapter") for one in request.adapters]
    sources: list[dict[str, Any]] = []
    for one in parsed:
        if isinstance(one, LocalDirectory):
            raise Invalid(
                f"{one.path}: a local directory is copied first, which --dry-run does not do; name it as pvc://CLAIM/PATH"
            )
        sources.append(one)
    base, *adapters = sources
    built = [build_adapter(request, workflow_id=workflow_id, namespace=namespace, base=base, adapters=adapters)]
    return (
        [*built, build_deployment(request, workflow_id=workflow_id, namespace=namespace)] if request.deploy else built
    )


def _adapters(texts: Sequence[str]) -> list[AdapterSource]:
    """`SOURCE` or `SOURCE=WEIGHT`; names are main, then adapter-2 and so on."""
    found = []
    for index, text in enumerate(texts):
        source, weight = _weighted(text)
        found.append(AdapterSource(name="main" if index == 0 else f"adapter-{index + 1}", source=source, weight=weight))
    return found


def _weighted(text: str) -> tuple[str, float]:
    """Only a number after the last `=` is a weight, as in lora-job."""
    head, equals, tail = text.rpartition("=")
    if equals:
        try:
            return head, float(tail)
        except ValueError:
            pass  # the path itself has an `=`
    return text, 1.0


def _runtime(asked: Asked) -> dict[str, Any]:
    runtime: dict[str, Any] = {"profile": asked.profile}
    if asked.image:
        runtime["image"] = asked.image
    if asked.gpus:
        runtime["resources"] = {"limits": {"nvidia.com/gpu": asked.gpus}}
    return runtime


def _traffic(asked: Asked) -> dict[str, Any]:
    """Exactly one of gateway, ingress and service; nothing said means a plain Service."""
    if asked.gateway and asked.ingress_class:
        raise Invalid("--gateway and --ingress-class exclude each other: a LoRADeployment has one router; choose one")
    if asked.gateway:
        if not asked.hosts:
            raise Invalid(
                "--gateway needs at least one --host: without one the route would take every host of the listener"
            )
        return {"gateway": {"parentRefs": [_parent(asked.gateway)], "hostnames": list(asked.hosts)}}
    if asked.ingress_class:
        if len(asked.hosts) > 1:
            raise Invalid(
                f"--host: found {len(asked.hosts)}, expected one: an Ingress of a LoRADeployment has one host"
            )
        host = {"host": asked.hosts[0]} if asked.hosts else {}
        return {"ingress": {"className": asked.ingress_class, **host}}
    if asked.hosts:
        raise Invalid("--host needs --gateway or --ingress-class: a plain Service has no host names")
    return {"service": {}}


def _parent(text: str) -> dict[str, str]:
    """`[NAMESPACE/]NAME[:LISTENER]`."""
    where, _, listener = text.partition(":")
    namespace, slash, name = where.rpartition("/")
    if not name or (slash and not namespace) or "/" in namespace:
        raise Invalid(f"--gateway: found {text!r}, expected [NAMESPACE/]NAME[:LISTENER], e.g. infra/public:web")
    parent = {"name": name} | ({"namespace": namespace} if namespace else {})
    return parent | ({"sectionName": listener} if listener else {})

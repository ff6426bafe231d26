"""LoRADeployment: what serves, parsed from the raw object into frozen types.

`None` where a settings value stands in for a silent spec (switch delay, canary steps, health check).
The status is typed in core/rollout/status.py, because the state machine owns its meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_operator.api.analysis import AnalysisSpec, parse_analysis
from lora_operator.api.errors import Invalid
from lora_operator.api.reader import Reader
from lora_operator.api.strategy import Strategy, parse_strategy

__all__ = [
    "Deployment",
    "GatewayTraffic",
    "IngressTraffic",
    "RuntimeSpec",
    "ServiceTraffic",
    "Traffic",
    "parse_deployment",
]


@dataclass(frozen=True)
class RuntimeSpec:
    """What a serving pod looks like. `raw` is `spec.runtime` as written: with the artifact digest it makes the revision."""

    profile: str
    served_model_name: str
    image: str  # empty: the profile's
    args: tuple[str, ...]
    max_model_len: int | None
    drain_seconds: int
    local_copy_size: str | None  # None: serve from the claim
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class GatewayTraffic:
    """An operator-owned HTTPRoute attached to the user's Gateways."""

    parent_refs: tuple[Mapping[str, Any], ...]
    hostnames: tuple[str, ...]


@dataclass(frozen=True)
class IngressTraffic:
    """Ingresses with canary annotations."""

    class_name: str
    host: str
    path: str


@dataclass(frozen=True)
class ServiceTraffic:
    """The plain Service alone."""


Traffic = GatewayTraffic | IngressTraffic | ServiceTraffic


@dataclass(frozen=True)
class HealthCheck:
    """How often and how long a candidate pod's completion is tried; None: settings decide."""

    retries: int | None
    timeout_seconds: int | None


@dataclass(frozen=True)
class Deployment:
    """A whole LoRADeployment."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    finalizers: tuple[str, ...]
    annotations: Mapping[str, str]
    adapter: str
    replicas: int
    runtime: RuntimeSpec
    strategy: Strategy
    traffic: Traffic
    health_check: HealthCheck
    analysis: AnalysisSpec
    rollback_automatic: bool
    history_limit: int
    progress_deadline_seconds: int
    unschedulable_seconds: int
    force_deploy: bool
    paused: bool
    status: Mapping[str, Any]


def parse_deployment(raw: Mapping[str, Any]) -> Deployment:
    """Raw object to frozen type.

    Raises:
        Invalid: naming field, found and expected.
    """
    meta = Reader(raw.get("metadata", {}), path="metadata")
    spec = Reader(raw.get("spec", {}), path="spec")
    rollback = spec.child("rollback")
    health = spec.child("healthCheck")
    name = meta.text("name")
    return Deployment(
        namespace=meta.text("namespace"),
        name=name,
        uid=meta.text("uid"),
        generation=meta.integer("generation", 1),
        resource_version=meta.text("resourceVersion", ""),
        deleting="deletionTimestamp" in meta,
        finalizers=meta.texts("finalizers"),
        annotations=meta.child("annotations").raw,
        adapter=spec.required("adapterRef").text("name"),
        replicas=spec.integer("replicas", 1),
        runtime=_parse_runtime(spec.required("runtime"), name=name),
        strategy=parse_strategy(spec.child("strategy")),
        traffic=_parse_traffic(spec.required("traffic")),
        health_check=HealthCheck(
            retries=health.integer("retries", minimum=1) if "retries" in health else None,
            timeout_seconds=health.integer("timeoutSeconds", minimum=1) if "timeoutSeconds" in health else None,
        ),
        analysis=parse_analysis(spec.child("analysis")),
        rollback_automatic=rollback.boolean("automatic", default=True),
        history_limit=rollback.integer("historyLimit", 5),
        progress_deadline_seconds=spec.integer("progressDeadlineSeconds", 1800, minimum=1),
        unschedulable_seconds=spec.integer("unschedulableSeconds", 60, minimum=1),
        force_deploy=spec.boolean("forceDeploy", default=False),
        paused=spec.boolean("paused", default=False),
        status=raw.get("status") or {},
    )


def _parse_runtime(reader: Reader, *, name: str) -> RuntimeSpec:
    copy = reader.child("localCopy")
    return RuntimeSpec(
        profile=reader.text("profile"),
        served_model_name=reader.text("servedModelName", name),
        image=reader.text("image", ""),
        args=reader.texts("args"),
        max_model_len=reader.integer("maxModelLen", minimum=1) if "maxModelLen" in reader else None,
        drain_seconds=reader.integer("drainSeconds", 60),
        local_copy_size=copy.text("sizeLimit") if "localCopy" in reader else None,
        raw=reader.raw,
    )


def _parse_traffic(reader: Reader) -> Traffic:
    member = reader.one_of("gateway", "ingress", "service")
    inner = reader.child(member)
    if member == "gateway":
        refs = tuple(item.raw for item in inner.children("parentRefs"))
        if not refs:
            raise Invalid(field=inner.at("parentRefs"), found=[], expected="at least one Gateway")
        return GatewayTraffic(parent_refs=refs, hostnames=inner.texts("hostnames"))
    if member == "ingress":
        return IngressTraffic(
            class_name=inner.text("className"), host=inner.text("host", ""), path=inner.text("path", "/")
        )
    return ServiceTraffic()

"""LoRAAdapter: one immutable build, parsed from the raw object into frozen types.

`None` in a validation field means "not said in the spec": settings, then the built-in value decide (core/adapter/effective.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lora_operator.api.errors import Invalid
from lora_operator.api.reader import Reader
from lora_operator.api.source import ClaimPath, Source, parse_claim_path, parse_source

__all__ = [
    "Adapter",
    "AdapterInput",
    "Dtype",
    "GateBasis",
    "Gates",
    "JobSpec",
    "Quantization",
    "Recipe",
    "Retain",
    "Strategy",
    "SuiteSource",
    "ValidationMode",
    "ValidationSpec",
    "parse_adapter",
]

SMALLEST_SUM = 1e-6
"""Of Linear's weights: it divides by their sum. The merge engine has the same rule."""


class Strategy(StrEnum):
    """How deltas are combined."""

    LINEAR = "Linear"
    SLERP = "SLERP"
    TASK_ARITHMETIC = "TaskArithmetic"
    TIES = "TIES"
    DARE_LINEAR = "DARELinear"
    DARE_TIES = "DARETIES"


class Dtype(StrEnum):
    """Storage type of merged tensors; Auto keeps each tensor's own."""

    AUTO = "Auto"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    FLOAT32 = "Float32"


class Quantization(StrEnum):
    """Format of the published weights."""

    NONE = "None"
    BNB_INT8 = "BnbInt8"
    BNB_NF4 = "BnbNF4"
    FP8_DYNAMIC = "FP8Dynamic"
    W4A16 = "W4A16"


class ValidationMode(StrEnum):
    """How much is measured."""

    NONE = "None"
    BASIC = "Basic"
    STANDARD = "Standard"
    COMPREHENSIVE = "Comprehensive"


class GateBasis(StrEnum):
    """What a gate compares: the estimate, or its one-sided 95 % bound."""

    POINT = "Point"
    LOWER_BOUND = "LowerBound"


class Retain(StrEnum):
    """What happens to the artifact when the object goes."""

    KEEP = "Keep"
    DELETE = "Delete"


@dataclass(frozen=True)
class AdapterInput:
    """One of the 1..8 adapters of a build."""

    name: str
    source: Source
    weight: float


@dataclass(frozen=True)
class Recipe:
    """The immutable part: what is merged, how, and how it is stored."""

    base: Source
    adapters: tuple[AdapterInput, ...]
    strategy: Strategy
    dtype: Dtype
    scale: float
    t: float
    density: float
    seed: int
    allow_unverified_base: bool
    allow_chat_template_digest: str | None
    quantization: Quantization
    raw: Mapping[str, Any]  # base, adapters, merge, quantization, artifact as written: what hash8 is made of


@dataclass(frozen=True)
class Gates:
    """Thresholds; None where the spec is silent."""

    min_score: float | None
    min_safety_score: float | None
    block_on_poor_quality: bool | None
    basis: GateBasis


@dataclass(frozen=True)
class SuiteSource:
    """One place with suites of the user's own: exactly one of both is not None."""

    config_map: str | None
    claim: ClaimPath | None


@dataclass(frozen=True)
class ValidationSpec:
    """What is measured and demanded; mutable, validates again without merging again."""

    mode: ValidationMode
    weights: Mapping[str, float] | None
    test_query_count: int | None
    benchmark_iterations: int | None
    gates: Gates
    suites: tuple[SuiteSource, ...]
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class JobSpec:
    """Pod settings of one kind of Job; raw JSON of the Kubernetes types of the same names."""

    resources: Mapping[str, Any]
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    env: tuple[Mapping[str, Any], ...]
    image_pull_secrets: tuple[Mapping[str, Any], ...]
    timeout_seconds: int
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class Adapter:
    """A whole LoRAAdapter; `status` is the raw status as stored."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    finalizers: tuple[str, ...]
    annotations: Mapping[str, str]
    version: str
    recipe: Recipe
    validation: ValidationSpec
    store: ClaimPath
    retain: Retain
    merge_job: JobSpec
    validate_job: JobSpec
    queue_name: str
    service_account: str
    suspend: bool
    status: Mapping[str, Any]


def parse_adapter(raw: Mapping[str, Any]) -> Adapter:
    """Raw object to frozen type.

    Raises:
        Invalid: naming field, found and expected.
    """
    meta = Reader(raw.get("metadata", {}), path="metadata")
    spec = Reader(raw.get("spec", {}), path="spec")
    artifact = spec.required("artifact")
    job = spec.child("job")
    return Adapter(
        namespace=meta.text("namespace"),
        name=meta.text("name"),
        uid=meta.text("uid"),
        generation=meta.integer("generation", 1),
        resource_version=meta.text("resourceVersion", ""),
        deleting="deletionTimestamp" in meta,
        finalizers=meta.texts("finalizers"),
        annotations=meta.child("annotations").raw,
        version=spec.text("version", ""),
        recipe=_parse_recipe(spec),
        validation=_parse_validation(spec.child("validation")),
        store=parse_claim_path(artifact.required("store").required("pvc")),
        retain=artifact.choice("retain", Retain, Retain.KEEP),
        merge_job=_parse_job(job.child("merge")),
        validate_job=_parse_job(job.child("validate")),
        queue_name=job.text("queueName", ""),
        service_account=job.text("serviceAccountName", ""),
        suspend=spec.boolean("suspend", default=False),
        status=raw.get("status") or {},
    )


def _parse_recipe(spec: Reader) -> Recipe:
    merge = spec.child("merge")
    adapters = tuple(_parse_input(item) for item in spec.children("adapters"))
    strategy = merge.choice("strategy", Strategy, Strategy.LINEAR)
    if not adapters:
        raise Invalid(field=spec.at("adapters"), found=[], expected="one to eight adapters")
    if strategy is Strategy.SLERP and len(adapters) != 2:
        raise Invalid(field=spec.at("adapters"), found=len(adapters), expected="exactly two adapters for SLERP")
    _check_weights(spec, strategy, adapters)
    density = merge.number("density", 0.5)
    if density <= 0 and strategy in {Strategy.TIES, Strategy.DARE_LINEAR, Strategy.DARE_TIES}:
        raise Invalid(
            field=merge.at("density"),
            found=density,
            expected=f"above 0 for {strategy}, which keeps that share of each adapter's change",
        )
    template = merge.text("allowChatTemplateDigest") if "allowChatTemplateDigest" in merge else None
    return Recipe(
        base=parse_source(spec.required("base")),
        adapters=adapters,
        strategy=strategy,
        dtype=merge.choice("dtype", Dtype, Dtype.AUTO),
        scale=merge.number("scale", 1.0),
        t=merge.number("t", 0.5),
        density=density,
        seed=merge.integer("seed", 0),
        allow_unverified_base=merge.boolean("allowUnverifiedBase", default=False),
        allow_chat_template_digest=template,
        quantization=spec.child("quantization").choice("format", Quantization, Quantization.NONE),
        raw={
            key: spec.raw[key] for key in ("base", "adapters", "merge", "quantization", "artifact") if key in spec.raw
        },
    )


def _check_weights(spec: Reader, strategy: Strategy, adapters: Sequence[AdapterInput]) -> None:
    """Linear divides by the sum of several weights."""
    total = math.fsum(item.weight for item in adapters)
    if strategy is Strategy.LINEAR and len(adapters) > 1 and abs(total) < SMALLEST_SUM:
        raise Invalid(
            field=spec.at("adapters"),
            found=f"weights that sum to {total:g}",
            expected="a sum that Linear can divide by; TaskArithmetic does not divide",
        )


def _parse_input(item: Reader) -> AdapterInput:
    return AdapterInput(name=item.text("name"), source=parse_source(item), weight=item.number("weight", 1.0))


def _parse_validation(reader: Reader) -> ValidationSpec:
    gates = reader.child("gates")
    weights = reader.child("weights").raw if "weights" in reader else None
    return ValidationSpec(
        mode=reader.choice("mode", ValidationMode, ValidationMode.STANDARD),
        weights=weights,
        test_query_count=reader.integer("testQueryCount", minimum=1) if "testQueryCount" in reader else None,
        benchmark_iterations=reader.integer("benchmarkIterations", minimum=1)
        if "benchmarkIterations" in reader
        else None,
        gates=Gates(
            min_score=gates.number("minScore") if "minScore" in gates else None,
            min_safety_score=gates.number("minSafetyScore") if "minSafetyScore" in gates else None,
            block_on_poor_quality=gates.boolean("blockOnPoorQuality") if "blockOnPoorQuality" in gates else None,
            basis=gates.choice("basis", GateBasis, GateBasis.POINT),
        ),
        suites=tuple(_parse_suites(item) for item in reader.children("suites")),
        raw=reader.raw,
    )


def _parse_suites(item: Reader) -> SuiteSource:
    if item.one_of("configMap", "pvc") == "pvc":
        return SuiteSource(config_map=None, claim=parse_claim_path(item.required("pvc")))
    return SuiteSource(config_map=item.required("configMap").text("name"), claim=None)


def _parse_job(reader: Reader) -> JobSpec:
    return JobSpec(
        resources=reader.child("resources").raw,
        node_selector=reader.child("nodeSelector").raw,
        tolerations=tuple(item.raw for item in reader.children("tolerations")),
        env=tuple(item.raw for item in reader.children("env")),
        image_pull_secrets=tuple(item.raw for item in reader.children("imagePullSecrets")),
        timeout_seconds=reader.integer("timeoutSeconds", 7200, minimum=1),
        raw=reader.raw,
    )

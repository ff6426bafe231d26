"""Which revision should serve, or what stands in the way.

    adapterRef ─► adapter Ready (or forced) ─► revision = hash(digest, spec.runtime) ─► stored? ─► else buildable?

A revision that already serves, or is already on its way, needs no adapter: it was proven once, and re-validating an
adapter must not take its model off the air.
"""

from dataclasses import dataclass, replace

from lora_operator.api.deployment import Deployment
from lora_operator.api.names import revision_of
from lora_operator.api.reasons import Reason
from lora_operator.core.build.pod_template import Artifact, build_pod_template
from lora_operator.core.build.profile import Profile
from lora_operator.core.build.revision import Revision
from lora_operator.core.build.single_node import is_single_node
from lora_operator.core.rollout.adapter_view import AdapterView
from lora_operator.core.rollout.capacity import GpuNeed, gpu_need
from lora_operator.core.rollout.memory import MemoryPlan, plan_memory
from lora_operator.core.rollout.observed import Observed
from lora_operator.core.rollout.status import Version

__all__ = ["ROLLBACK_ACCEPTED", "Block", "Goal", "build_revision", "goal_of", "need_of"]

ROLLBACK_ACCEPTED = "Accepted"


@dataclass(frozen=True)
class Goal:
    """What should serve."""

    revision: str
    adapter: str
    artifact_digest: str
    held: bool = False  # the spec names another revision, but somebody asked for this one
    forced: tuple[str, ...] = ()  # soft gates that forceDeploy overrides

    @property
    def version(self) -> Version:
        """Its entry in status, before anything was observed of it."""
        return Version(
            revision=self.revision, adapter=self.adapter, artifact_digest=self.artifact_digest, target_weight=0
        )


@dataclass(frozen=True)
class Block:
    """Why there is no goal. `stalled`: only a person can help."""

    reason: Reason
    message: str
    stalled: bool


def goal_of(observed: Observed) -> Goal | Block:
    """What the spec, the adapter and a rollback request together ask for."""
    if observed.invalid is not None:
        return Block(reason=observed.invalid.reason, message=f"{observed.invalid}; correct the manifest", stalled=True)
    assert observed.spec is not None  # noqa: S101 (Observed: exactly one of spec and invalid)
    declared = _declared(observed, observed.spec)
    return _held(observed, declared) or declared


def _declared(observed: Observed, spec: Deployment) -> Goal | Block:
    adapter = observed.adapter
    if adapter is not None and adapter.digest and (adapter.ready or _may_force(spec, adapter)):
        return Goal(
            revision=revision_of(artifact_digest=adapter.digest, runtime=spec.runtime.raw),
            adapter=adapter.name,
            artifact_digest=adapter.digest,
            forced=() if adapter.ready else adapter.failed_soft,
        )
    return _known(observed, spec) or _never(observed, spec) or _not_ready(spec, adapter)


def _never(observed: Observed, spec: Deployment) -> Block | None:
    """What no adapter could mend is said at once: a build and its validation may take an hour."""
    profile = _profile_of(observed, spec)
    return profile if isinstance(profile, Block) else _impossible(observed, spec, profile)


def _may_force(spec: Deployment, adapter: AdapterView) -> bool:
    """forceDeploy overrides soft gates of a finished validation, never a hard one and never a build that failed."""
    return spec.force_deploy and adapter.phase == "Rejected" and not adapter.failed_hard


def _known(observed: Observed, spec: Deployment) -> Goal | None:
    """The declared adapter and runtime are what already serves or is on its way."""
    for version in (observed.status.candidate, observed.status.stable):
        if version is None or version.adapter != spec.adapter:
            continue
        if revision_of(artifact_digest=version.artifact_digest, runtime=spec.runtime.raw) == version.revision:
            return Goal(revision=version.revision, adapter=version.adapter, artifact_digest=version.artifact_digest)
    return None


def _not_ready(spec: Deployment, adapter: AdapterView | None) -> Block:
    if adapter is None:
        return Block(
            reason=Reason.ADAPTER_NOT_FOUND,
            message=f"spec.adapterRef names LoRAAdapter {spec.adapter}, which is not in this namespace; "
            "apply it or correct the name",
            stalled=False,
        )
    ended = adapter.phase in ("Rejected", "Failed")
    why = f"{adapter.reason}: {adapter.message}" if adapter.reason else "it was just created"
    force = ""
    if spec.force_deploy and adapter.failed_hard:
        force = f"; forceDeploy cannot override the hard gates {', '.join(adapter.failed_hard)}"
    return Block(
        reason=Reason.ADAPTER_NOT_READY,
        message=f"LoRAAdapter {adapter.name} is {adapter.phase} ({why}){force}",
        stalled=ended,
    )


def _held(observed: Observed, declared: Goal | Block) -> Goal | None:
    """The revision of an accepted rollback-to, for as long as the spec still names the one it left."""
    status = observed.status
    request = status.last_requests.get("rollback-to")
    if not status.held_revision or request is None or request.result != ROLLBACK_ACCEPTED:
        return None
    if isinstance(declared, Goal) and declared.revision != status.held_revision:
        return None
    revision = request.value.partition("/")[0]
    record = observed.records.get(revision)
    if record is None:
        return None
    return Goal(revision=revision, adapter=record.adapter, artifact_digest=record.artifact_digest, held=True)


def need_of(observed: Observed, goal: Goal) -> GpuNeed | None:
    """The device that one pod of the goal asks for."""
    record = observed.records.get(goal.revision)
    if record is not None:
        return None if not record.gpus_per_pod else GpuNeed(record.gpu_resource, record.gpus_per_pod)
    return None if observed.spec is None else gpu_need(observed.spec.runtime.raw.get("resources") or {})


def build_revision(observed: Observed, goal: Goal) -> Revision | Block:
    """The goal's frozen revision: the stored one, or one made of spec, adapter and profile."""
    stored = observed.records.get(goal.revision)
    if stored is not None:
        return stored
    spec, adapter = observed.spec, observed.adapter
    if spec is None or adapter is None or adapter.digest != goal.artifact_digest:
        return Block(
            reason=Reason.ADAPTER_NOT_FOUND,
            message=f"revision {goal.revision} is not stored and LoRAAdapter {goal.adapter} is gone",
            stalled=True,
        )
    profile = _profile_of(observed, spec)
    if isinstance(profile, Block):
        return profile
    return (
        _impossible(observed, spec, profile)
        or _unreadable(spec, adapter, profile)
        or _memory_block(observed, spec, adapter, profile)
        or _build(observed, goal, spec=spec, adapter=adapter, profile=profile)
    )


def _profile_of(observed: Observed, spec: Deployment) -> Profile | Block:
    profile = observed.settings.profiles.get(spec.runtime.profile)
    if profile is not None:
        return profile
    known = ", ".join(sorted(observed.settings.profiles))
    return Block(
        reason=Reason.UNKNOWN_PROFILE,
        message=f"spec.runtime.profile: found {spec.runtime.profile!r}, expected one of {known}",
        stalled=True,
    )


def _impossible(observed: Observed, spec: Deployment, profile: Profile) -> Block | None:
    runtime = spec.runtime
    if not runtime.image and not profile.image:
        return Block(
            reason=Reason.INVALID,
            message=f"spec.runtime.image: found nothing, expected an image (profile {profile.name} brings none)",
            stalled=True,
        )
    if runtime.max_model_len is not None and not profile.max_model_len_args:
        return Block(
            reason=Reason.INVALID,
            message=f"spec.runtime.maxModelLen: found {runtime.max_model_len}, "
            f"expected nothing: profile {profile.name} has no argument for it",
            stalled=True,
        )
    if observed.access_modes is not None and observed.access_modes == ("ReadWriteOncePod",):
        return Block(
            reason=Reason.VOLUME_NOT_SHAREABLE,
            message="the artifact's claim is ReadWriteOncePod: only one pod may ever mount it; use ReadWriteMany",
            stalled=True,
        )
    return None


def _unreadable(spec: Deployment, adapter: AdapterView, profile: Profile) -> Block | None:
    """The profile's own image cannot run the artifact's format: its pods would crash, which takes minutes to tell."""
    if spec.runtime.image or not profile.quantizations or adapter.quantization in profile.quantizations:
        return None
    return Block(
        reason=Reason.INVALID,
        message=f"spec.runtime.profile: profile {profile.name} runs {', '.join(profile.quantizations)}, LoRAAdapter {adapter.name} is "
        f"{adapter.quantization}; use profile vllm, an image of your own, or another quantization.format",
        stalled=True,
    )


def _memory_block(observed: Observed, spec: Deployment, adapter: AdapterView, profile: Profile) -> Block | None:
    plan = _memory_plan(observed, spec, adapter, profile)
    if not plan.refusal:
        return None
    return Block(reason=Reason.INSUFFICIENT_MEMORY, message=f"LoRAAdapter {adapter.name} {plan.refusal}", stalled=True)


def _memory_plan(observed: Observed, spec: Deployment, adapter: AdapterView, profile: Profile) -> MemoryPlan:
    need = gpu_need(spec.runtime.raw.get("resources") or {})
    return plan_memory(
        serving=adapter.serving,
        quantization=adapter.quantization,
        gpu_memory_mib=None if observed.supply is None else observed.supply.memory_mib,
        gpus=0 if need is None else need.per_pod,
        utilization=profile.gpu_memory_utilization,
        wanted_len=spec.runtime.max_model_len,
    )


def _build(observed: Observed, goal: Goal, *, spec: Deployment, adapter: AdapterView, profile: Profile) -> Revision:
    need = gpu_need(spec.runtime.raw.get("resources") or {})
    template = build_pod_template(
        observed.owner,
        revision=goal.revision,
        runtime=spec.runtime,
        profile=profile,
        artifact=Artifact(
            claim=adapter.claim,
            path=adapter.path,
            digest=adapter.digest,
            quantization=adapter.quantization,
            weights_bytes=adapter.weights_bytes,
            single_node=observed.access_modes is not None and is_single_node(observed.access_modes),
        ),
        settings=observed.settings.pods,
        max_model_len=_memory_plan(observed, spec, adapter, profile).max_model_len,
    )
    return Revision(
        revision=goal.revision,
        number=1 + max((record.number for record in observed.records.values()), default=0),
        adapter=goal.adapter,
        artifact_digest=goal.artifact_digest,
        served_model_name=spec.runtime.served_model_name,
        profile=profile.name,
        profile_digest=profile.digest,
        port=profile.port,
        routes=profile.routes,
        probes=adapter.probes,
        gpu_resource="" if need is None else need.resource,
        gpus_per_pod=0 if need is None else need.per_pod,
        drain_seconds=spec.runtime.drain_seconds,
        template=template,
    )


def as_version(goal: Goal, version: Version) -> Version:
    """A known version under the goal's adapter name (a namesake build with the same digest is the same revision)."""
    return replace(version, adapter=goal.adapter)

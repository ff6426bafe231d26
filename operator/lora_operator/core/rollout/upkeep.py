"""What is done in every phase: the serving version kept as declared, the route as status says, the one before kept warm and
then drained.

A scale-down needs all of: not stable, not candidate, weight 0 confirmed, drain deadline passed, and a live route that no
longer names the revision.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from lora_operator.api.reasons import Reason
from lora_operator.core.build.compare import says_all_of
from lora_operator.core.build.deployment import build_deployment
from lora_operator.core.build.revision import Revision
from lora_operator.core.plan import Effect
from lora_operator.core.rollout.children import delete_object, keep_revision, remove_revision, scale_to_zero
from lora_operator.core.rollout.goal import Block, Goal, build_revision
from lora_operator.core.rollout.move import Situation
from lora_operator.core.rollout.router import Verdict
from lora_operator.core.rollout.status import IN_FLIGHT, Phase, RolloutStatus, Version
from lora_operator.core.rollout.traffic import unroutable
from lora_operator.core.rollout.weights import TOTAL, forced_of, weights_of

__all__ = [
    "SHORTEST_DRAIN_SECONDS",
    "Drain",
    "candidate_replicas",
    "drain_previous",
    "keep_candidate",
    "keep_route",
    "keep_stable",
    "prune",
    "record_of",
    "release_previous",
    "stable_replicas",
    "verdict_of",
]

SUCCEEDED = "Succeeded"
# A route is confirmed before the last proxy has read it (Traefik takes one change in two seconds); no drain is shorter than that.
SHORTEST_DRAIN_SECONDS = 5


def record_of(s: Situation, version: Version) -> Revision | None:
    """The frozen revision of a version; rebuilt when its record was deleted by hand and still comes out the same."""
    stored = s.observed.records.get(version.revision)
    if stored is not None:
        return stored
    goal = Goal(revision=version.revision, adapter=version.adapter, artifact_digest=version.artifact_digest)
    if isinstance(s.goal, Block) or s.goal.revision != version.revision:
        return None
    built = build_revision(s.observed, goal)
    live = s.observed.workload(version.revision)
    if isinstance(built, Block):
        return None
    if live.deployment is not None:
        same = says_all_of(live.deployment, build_deployment(s.observed.owner, built, replicas=live.replicas))
        return built if same else None
    return built


def stable_replicas(s: Situation, status: RolloutStatus) -> int:
    """Declared replicas, or none while Replace has to lend the GPU to the candidate.

    Zero replicas declared in the middle of a rollout wait for its end: the old version has a share until then, and a way back
    needs a pod of it.
    """
    if status.downtime.since is not None and status.phase in (Phase.REPLACING, Phase.PROMOTING):
        return 0
    floor = 0
    if status.stable is not None and status.candidate is not None and status.phase in IN_FLIGHT | {Phase.ABORTING}:
        serves = s.observed.workload(status.stable.revision).replicas > 0
        floor = 1 if serves or status.phase is Phase.ABORTING else 0
    return max(floor, s.spec.replicas)


def candidate_replicas(s: Situation, status: RolloutStatus) -> int:
    """Pods for the share it gets or is prepared for, all of them where no step says less; at least one, to be asked."""
    step, candidate = status.step, status.candidate
    share = TOTAL
    if step is not None and step.scale is not None:
        share = max(step.scale, 0 if candidate is None else candidate.target_weight or 0)
    return max(1, -(-s.spec.replicas * share // TOTAL))


def keep_candidate(s: Situation, status: RolloutStatus) -> tuple[Effect, ...]:
    """The candidate with as many pods as status asks for."""
    record = None if status.candidate is None else record_of(s, status.candidate)
    if record is None:
        return ()
    return keep_revision(s.observed, record, replicas=candidate_replicas(s, status))


def keep_stable(s: Situation, status: RolloutStatus) -> tuple[Effect, ...]:
    """The serving version as declared: replicas, hand edits and deletions healed."""
    if status.stable is None:
        return ()
    record = record_of(s, status.stable)
    if record is None:
        return ()
    return keep_revision(s.observed, record, replicas=stable_replicas(s, status))


def keep_route(s: Situation, status: RolloutStatus) -> tuple[Effect, ...]:
    """The route as status says, unless that would give weight to a version without a ready pod.

    Once it is confirmed, in whatever phase, the route of a former spec.traffic goes: until then that one serves, and what
    it names is drained by nobody.
    """
    router, weights = s.observed.router, weights_of(status)
    if router is None:
        return ()
    forced = forced_of(status, s.spec.strategy)
    versions = {v.revision: v for v in (status.stable, status.candidate) if v is not None}
    route = s.observed.route
    shown = {} if route is None else route.weights
    if _unroutable(s, status):
        return ()  # a former route, where there is one, goes on serving all paths
    for revision in (*weights, *(() if forced is None else (forced.revision,))):
        already = revision in shown or (route is not None and revision in route.named)
        if s.observed.workload(revision).ready == 0 and not already:
            return ()
    named = next((versions[revision] for revision in weights), None)
    record = None if named is None else record_of(s, named)
    written = router.write(s.observed.owner, route=route, revision=record, weights=weights, forced=forced)
    if written or not router.verify(s.observed.owner, route=route, weights=weights, forced=forced).confirmed:
        return written
    return tuple(delete_object(other.kind, other.live) for other in s.observed.other_routes)


def verdict_of(s: Situation, status: RolloutStatus) -> Verdict | None:
    """Whether traffic flows as status says, through nothing else too; None when there is no router to ask."""
    if s.observed.router is None:
        return None
    refusal = _unroutable(s, status)
    if refusal:
        return Verdict(confirmed=False, reason=Reason.INVALID, message=refusal)
    verdict = s.observed.router.verify(
        s.observed.owner,
        route=s.observed.route,
        weights=weights_of(status),
        forced=forced_of(status, s.spec.strategy),
    )
    others = ", ".join(f"{other.kind.kind} {other.name}" for other in s.observed.other_routes)
    if others and verdict.confirmed:
        message = f"{others} of the former spec.traffic still takes requests and is being removed"
        return Verdict(confirmed=False, reason=Reason.PROMOTING, message=message, written=True)
    return verdict


def _unroutable(s: Situation, status: RolloutStatus) -> str:
    """Why the declared traffic, edited since the start perhaps, cannot serve every path of a version that has requests."""
    served = (v for v in (status.stable, status.candidate) if v is not None and v.revision in weights_of(status))
    records = (record_of(s, version) for version in served)
    return next((said for record in records if record is not None and (said := unroutable(s.spec, record))), "")


@dataclass(frozen=True)
class Drain:
    """Where the draining of the previous version stands."""

    status: RolloutStatus
    effects: tuple[Effect, ...] = ()
    look_again: datetime | None = None


def release_previous(s: Situation, status: RolloutStatus) -> RolloutStatus:
    """The version before need not stay warm any longer: its GPU is wanted, or another one takes its place."""
    previous = status.previous
    if previous is None or previous.keep_until <= s.now:
        return status
    return replace(status, previous=replace(previous, keep_until=s.now))


def drain_previous(s: Situation, status: RolloutStatus) -> Drain:
    """One step of it: wait, scale down, forget."""
    previous = status.previous
    if previous is None:
        return Drain(status=status)
    end = max(previous.keep_until, previous.drain_until)
    if s.now < end:
        return Drain(status=status, look_again=end)
    revision = previous.version.revision
    verdict = verdict_of(s, status)
    if verdict is None or not verdict.confirmed or named_in_route(s, revision):
        return Drain(status=status, look_again=s.after(1))
    live = s.observed.workload(revision)
    if live.replicas == 0 and not live.pods:
        return Drain(status=replace(status, previous=None))
    return Drain(status=status, effects=scale_to_zero(s.observed, revision), look_again=s.after(5))


def named_in_route(s: Situation, revision: str) -> bool:
    """Whether a live route still sends anything there: the declared one, or what a former spec.traffic left."""
    routes = (*s.observed.other_routes, *([s.observed.route] if s.observed.route is not None else []))
    return any(revision in route.named for route in routes)


def prune(s: Situation, status: RolloutStatus) -> tuple[Effect, ...]:
    """Revisions that nothing refers to: the newest good ones stay at 0 pods, to go back to; all others go."""
    parts = (status.stable, status.candidate, None if status.previous is None else status.previous.version)
    referenced = {version.revision for version in parts if version is not None}
    unused = set(s.observed.workloads) - referenced
    kept = _worth_keeping(s, status, unused)
    effects: list[Effect] = []
    for revision in sorted(unused):
        if named_in_route(s, revision):
            continue
        take_away = scale_to_zero if revision in kept else remove_revision
        effects += take_away(s.observed, revision)
    return tuple(effects)


def _worth_keeping(s: Situation, status: RolloutStatus, unused: set[str]) -> set[str]:
    """At most historyLimit stored revisions that once served. Failed attempts never push a good one out."""
    failed = {entry.revision for entry in status.history if entry.result != SUCCEEDED}
    failed -= {entry.revision for entry in status.history if entry.result == SUCCEEDED}
    good = sorted(
        (s.observed.records[revision] for revision in unused - failed if revision in s.observed.records),
        key=lambda record: record.number,
        reverse=True,
    )
    return {record.revision for record in good[: s.spec.history_limit]}

"""LoRADeployment: observe → decide → write status → apply effects.

The snapshot comes from the cache. Read live are only: the route while traffic moves or a version drains, and what a
start needs (nodes, pods, the claim). Everything that is decided is decided in core/rollout.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from lora_operator.api.deployment import Deployment, GatewayTraffic, parse_deployment
from lora_operator.api.errors import Invalid
from lora_operator.api.kinds import (
    ADAPTER,
    CLAIM,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    LORA_DEPLOYMENT,
    NODE,
    POD,
    SERVICE,
)
from lora_operator.api.names import LABEL_REVISION, revisioned
from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import StrategyType, with_default_steps
from lora_operator.core.analysis.stored import comparison_from
from lora_operator.core.build.comparison import COMPARISON_KEY, comparison_name
from lora_operator.core.build.labels import selector_of
from lora_operator.core.build.owner import Owner, is_owned
from lora_operator.core.build.pod_template import PodSettings
from lora_operator.core.build.revision import Revision, parse_controller_revision
from lora_operator.core.build.single_node import is_single_node
from lora_operator.core.rollout.adapter_view import AdapterView, view_adapter
from lora_operator.core.rollout.capacity import GpuNeed, Supply, read_supply
from lora_operator.core.rollout.comparing import compares, rollout_of
from lora_operator.core.rollout.decide import decide, starting_goal
from lora_operator.core.rollout.goal import Goal, goal_of, need_of
from lora_operator.core.rollout.observed import (
    Answer,
    Lack,
    Observed,
    Refusal,
    RolloutSettings,
    RouterMetrics,
    Workload,
)
from lora_operator.core.rollout.pods import Pod, parse_pod
from lora_operator.core.rollout.router import RouteState
from lora_operator.core.rollout.status import Phase, RolloutStatus
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import Forbidden, Rejected
from lora_operator.reconcile.collector import Collector
from lora_operator.reconcile.effects import FINALIZER
from lora_operator.reconcile.step import Stepper
from lora_operator.reconcile.verifier import Verifier
from lora_operator.routing.base import ReadingRouter
from lora_operator.routing.capability import lack_of
from lora_operator.routing.choose import every_router, router_for
from lora_operator.routing.controller import Ask, Controllers, Patient, ask_over_http
from lora_operator.routing.metrics import router_metrics
from lora_operator.runtime.cache import Cache
from lora_operator.runtime.clock import Clock
from lora_operator.runtime.queue import Key
from lora_operator.settings import Settings

__all__ = ["DeploymentReconciler"]

_MOVING = frozenset({Phase.STEPPING, Phase.TESTING, Phase.SWITCHING, Phase.PROMOTING, Phase.ABORTING, Phase.DELETING})


class DeploymentReconciler:
    """One for the process."""

    def __init__(
        self,
        *,
        kube: Kube,
        cache: Cache,
        stepper: Stepper,
        verifier: Verifier,
        collector: Collector,
        settings: Settings,
        clock: Clock,
        ask: Ask | None = None,
    ) -> None:
        """`ask`: how a router's controller is asked; over HTTP where nothing else is said."""
        self._kube = kube
        self._cache = cache
        self._stepper = stepper
        self._verifier = verifier
        self._collector = collector
        self._clock = clock
        self._routers = settings.routers
        self._controllers = Controllers.of(settings.routers, ask=ask or Patient(ask_over_http))
        self._settings = RolloutSettings(
            profiles=settings.profiles,
            pods=PodSettings(
                operator_image=settings.operator_image,
                operator_pull_policy=settings.image_pull_policy,
                run_as_user=settings.pod_security.run_as_user,
            ),
            health_retries=settings.deployment.health_check_retries,
            health_timeout_seconds=settings.deployment.health_check_timeout_seconds,
            switch_delay_seconds=settings.deployment.blue_green_switch_delay_seconds,
            canary_weight=settings.deployment.canary_traffic_percentage,
            interval_seconds=settings.monitoring.collection_interval_seconds,
        )
        self._refusals: dict[str, Refusal] = {}  # by uid; lost on restart, when the server is simply asked again

    async def reconcile(self, key: Key) -> float | None:
        """One look at one deployment."""
        raw = self._cache.get(LORA_DEPLOYMENT, namespace=key.namespace, name=key.name)
        if raw is None:
            self._collector.forget(key)
            return None
        now = self._clock.now()
        uid = str(raw["metadata"]["uid"])
        plan = decide(await self._observe(raw, now=now), now=now)
        try:
            after = await self._stepper.take(plan, kind=LORA_DEPLOYMENT, raw=raw, now=now)
        except Rejected as error:
            self._refusals[uid] = Refusal(reason=Reason.INVALID, message=str(error))
            raise
        except Forbidden as error:
            self._refusals[uid] = Refusal(reason=Reason.FORBIDDEN, message=str(error))
            raise
        self._refusals.pop(uid, None)
        return after

    async def _observe(self, raw: Json, *, now: datetime) -> Observed:
        meta = raw["metadata"]
        owner = Owner(namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])
        spec, invalid = _parsed(raw, canary_weight=self._settings.canary_weight)
        status = RolloutStatus.from_json(raw.get("status") or {})
        router = None if spec is None else self._router(spec)
        records = self._records(owner)
        pods = self._pods(owner)
        self._forget_answers(status, pods)
        route = await self._route(owner, status, router, pods=pods)
        observed = Observed(
            owner=owner,
            generation=int(meta.get("generation", 1)),
            deleting="deletionTimestamp" in meta,
            has_finalizer=FINALIZER in (meta.get("finalizers") or ()),
            annotations=meta.get("annotations") or {},
            spec=spec,
            invalid=invalid,
            status=status,
            adapter=self._adapter(owner, spec),
            access_modes=None,
            settings=self._settings,
            records=records,
            workloads=self._workloads(owner, pods),
            router=router,
            route=route,
            other_routes=tuple(await self._other_routes(owner, route, spec, pods=pods)),
            answers=self._answers(pods),
            refusal=self._refusals.get(owner.uid),
        )
        observed = replace(observed, foreign=tuple(self._foreign(observed)))
        observed = await self._with_comparison(observed)
        return await self._with_supply(observed, now=now)

    async def _with_comparison(self, observed: Observed) -> Observed:
        """Stored sums and the newest figures; read only while they matter."""
        owner = observed.owner
        key = Key(LORA_DEPLOYMENT.plural, owner.namespace, owner.name)
        if observed.status.candidate is None:
            self._collector.forget(key)
        if not compares(observed, observed.status):
            return observed
        try:
            found = await self._kube.get(CONFIG_MAP, namespace=owner.namespace, name=comparison_name(owner.name))
        except Forbidden:
            found = (
                None  # nothing is concluded then; the write says which right is missing, and an abort stays possible
            )
        mine = found is not None and is_owned(found, uid=owner.uid)
        text = str((found.get("data") or {}).get(COMPARISON_KEY, "")) if found is not None and mine else ""
        return replace(
            observed,
            comparison=comparison_from(text, rollout=rollout_of(observed.status)),
            comparison_object=found,
            sample=self._collector.sample(key),
            router_metrics=await self._router_metrics(observed),
        )

    async def _router_metrics(self, observed: Observed) -> RouterMetrics | None:
        spec = observed.spec
        if spec is None or spec.analysis.prometheus:
            return None
        return await router_metrics(self._kube, spec.traffic, namespace=observed.owner.namespace, routers=self._routers)

    async def _with_supply(self, observed: Observed, *, now: datetime) -> Observed:
        """What only a start needs to know."""
        goal = starting_goal(observed, now=now)
        if goal is None:
            return observed
        need = need_of(observed, goal)
        supply = None if need is None else await self._supply(observed, need)
        modes = await self._access_modes(observed)
        if supply is not None and is_single_node(modes or ()):
            supply = supply.on_one_node()
        return replace(observed, supply=supply, access_modes=modes, lack=await self._lack(observed))

    async def _lack(self, observed: Observed) -> Lack | None:
        spec = observed.spec
        if spec is None or not isinstance(spec.traffic, GatewayTraffic):
            return None
        profile, test = self._settings.profiles.get(spec.runtime.profile), spec.strategy.ab_test
        match = test.match if test is not None and spec.strategy.type is StrategyType.AB_TEST else None
        return await lack_of(
            self._kube,
            spec.traffic,
            namespace=observed.owner.namespace,
            rewrites=profile is not None and any(path != target for path, target in profile.routes.items()),
            cookie=match is not None and match.kind == "cookie",
            routers=self._routers,
        )

    async def _supply(self, observed: Observed, need: GpuNeed) -> Supply | None:
        assert observed.spec is not None  # noqa: S101 (there is a goal only with a spec)
        stable, previous = observed.status.stable, observed.status.previous
        labels = {} if stable is None else selector_of(observed.owner, revision=stable.revision)
        kept = {} if previous is None else selector_of(observed.owner, revision=previous.version.revision)
        try:
            nodes = await self._kube.list(NODE)
            pods = await self._kube.list(POD)
        except Forbidden:
            return None  # without these rights the scheduler is the judge
        runtime = observed.spec.runtime.raw
        return read_supply(
            nodes=nodes, pods=pods, need=need, runtime=runtime, stable_labels=labels, previous_labels=kept
        )

    async def _access_modes(self, observed: Observed) -> tuple[str, ...] | None:
        adapter = observed.adapter
        if adapter is None or not adapter.claim:
            return None
        claim = await self._kube.get(CLAIM, namespace=observed.owner.namespace, name=adapter.claim)
        return None if claim is None else tuple(claim["spec"].get("accessModes") or ())

    def _adapter(self, owner: Owner, spec: Deployment | None) -> AdapterView | None:
        if spec is None:
            return None
        found = self._cache.get(ADAPTER, namespace=owner.namespace, name=spec.adapter)
        return None if found is None else view_adapter(found)

    def _records(self, owner: Owner) -> Mapping[str, Revision]:
        stored = self._cache.children(CONTROLLER_REVISION, owner_uid=owner.uid)
        parsed = (parse_controller_revision(item) for item in stored)
        return {revision.revision: revision for revision in parsed if revision is not None}

    def _pods(self, owner: Owner) -> list[Pod]:
        """Pods of all revisions. They belong to ReplicaSets, so our labels find them."""
        return [parse_pod(pod) for pod in self._cache.naming(POD, namespace=owner.namespace, name=owner.name)]

    def _workloads(self, owner: Owner, pods: Iterable[Pod]) -> Mapping[str, Workload]:
        found: dict[str, dict[str, Any]] = {}
        kinds = {
            "record": CONTROLLER_REVISION,
            "deployment": DEPLOYMENT,
            "service": SERVICE,
            "budget": DISRUPTION_BUDGET,
        }
        for part, kind in kinds.items():
            for child in self._cache.children(kind, owner_uid=owner.uid):
                revision = (child["metadata"].get("labels") or {}).get(LABEL_REVISION)
                if revision and child["metadata"]["name"] == revisioned(owner.name, revision=revision):
                    found.setdefault(revision, {})[part] = child
        for pod in pods:
            found.setdefault(pod.revision, {}).setdefault("pods", []).append(pod)
        return {
            revision: Workload(**{**parts, "pods": tuple(parts.get("pods", ()))}) for revision, parts in found.items()
        }

    async def _route(
        self, owner: Owner, status: RolloutStatus, router: ReadingRouter | None, *, pods: Sequence[Pod]
    ) -> RouteState | None:
        """The route of the spec; while the spec asks for none that we know, the one that is there."""
        if router is not None:
            fresh = status.phase in _MOVING or status.previous is not None or not status.endpoints
            cached = self._cached_route(owner, router)
            return await router.read(self._kube, owner=owner, cached=cached, fresh=fresh, pods=pods)
        for known in every_router():
            cached = self._cached_route(owner, known)
            if any(is_owned(obj, uid=owner.uid) for obj in cached.values()):
                return await known.read(self._kube, owner=owner, cached=cached, fresh=False, pods=pods)
        return None

    def _router(self, spec: Deployment) -> ReadingRouter:
        return router_for(spec.traffic, replicas=spec.replicas, controllers=self._controllers)

    def _cached_route(self, owner: Owner, router: ReadingRouter) -> Mapping[str, Json]:
        found = {
            name: self._cache.get(router.kind, namespace=owner.namespace, name=name) for name in router.names(owner)
        }
        return {name: obj for name, obj in found.items() if obj is not None}

    async def _other_routes(
        self, owner: Owner, route: RouteState | None, spec: Deployment | None, *, pods: Sequence[Pod]
    ) -> Sequence[RouteState]:
        """Ours of a kind that the spec no longer asks for, one for each object; with an unreadable spec, all of ours."""
        found: list[RouteState] = []
        for known in every_router():
            kind = known.kind
            current = route is not None and route.kind is kind
            wanted = spec is not None and self._router(spec).kind is kind
            cached = {
                name: obj for name, obj in self._cached_route(owner, known).items() if is_owned(obj, uid=owner.uid)
            }
            if current or wanted or not cached:
                continue
            whole = await known.read(self._kube, owner=owner, cached=cached, fresh=False, pods=pods)
            found += [
                RouteState(
                    kind=kind,
                    live=live,
                    owned=True,
                    weights={} if whole is None else whole.weights,
                    accepted=False,
                    reason=Reason.PROMOTING,
                    message="",
                    named=known.named_by(live, owner=owner, pods=pods),
                )
                for live in cached.values()
            ]
        return found

    def _answers(self, pods: Iterable[Pod]) -> Mapping[str, Answer]:
        answers: dict[str, Answer] = {}
        for pod in pods:
            verdict = self._verifier.verdict(pod.uid)
            if verdict is not None and verdict.passed is not None:
                reason = Reason.WRONG_MODEL_ANSWERS if verdict.wrong else Reason.POD_FAILED
                answers[pod.uid] = Answer(passed=verdict.passed, reason=reason, message=verdict.detail)
        return answers

    def _forget_answers(self, status: RolloutStatus, pods: Iterable[Pod]) -> None:
        """Answers count for a candidate only; a later rollout asks its own pods."""
        if status.candidate is None:
            for pod in pods:
                self._verifier.forget(pod.uid)

    def _foreign(self, observed: Observed) -> Iterable[str]:
        """Objects under the names of revisions that matter, which belong to somebody else."""
        goal = goal_of(observed)
        versions = (observed.status.stable, observed.status.candidate)
        revisions = {version.revision for version in versions if version is not None}
        if isinstance(goal, Goal):
            revisions.add(goal.revision)
        owner = observed.owner
        for revision in sorted(revisions):
            name = revisioned(owner.name, revision=revision)
            for kind in (CONTROLLER_REVISION, SERVICE, DEPLOYMENT):
                live = self._cache.get(kind, namespace=owner.namespace, name=name)
                if live is not None and not is_owned(live, uid=owner.uid):
                    yield f"{kind.kind} {owner.namespace}/{name}"


def _parsed(raw: Json, *, canary_weight: int) -> tuple[Deployment | None, Invalid | None]:
    try:
        spec = parse_deployment(raw)
    except Invalid as error:
        return None, error
    return replace(spec, strategy=with_default_steps(spec.strategy, weight=canary_weight)), None

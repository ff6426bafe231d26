"""LoRAAdapter: observe → decide → write status → apply effects."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from lora_operator.api.adapter import Adapter, ValidationMode, parse_adapter
from lora_operator.api.conditions import Condition, merge_conditions
from lora_operator.api.errors import Invalid
from lora_operator.api.kinds import ADAPTER, CLAIM, CONFIG_MAP, CONTROLLER_REVISION, JOB, LORA_DEPLOYMENT, POD
from lora_operator.core.adapter.decide import decide
from lora_operator.core.adapter.effective import Defaults
from lora_operator.core.adapter.job_view import JobView, view_job
from lora_operator.core.adapter.observed import Claim, Observed
from lora_operator.core.build.job import JobSettings
from lora_operator.core.build.single_node import is_single_node
from lora_operator.core.plan import Note, Plan
from lora_operator.kube.client import Json, Kube
from lora_operator.reconcile.effects import FINALIZER
from lora_operator.reconcile.step import Stepper
from lora_operator.runtime.cache import Cache, controller_of
from lora_operator.runtime.clock import Clock
from lora_operator.runtime.queue import Key
from lora_operator.settings import Settings

__all__ = ["AdapterReconciler"]

TTL_SECONDS = 3600


class AdapterReconciler:
    """One for the process."""

    def __init__(self, *, kube: Kube, cache: Cache, stepper: Stepper, settings: Settings, clock: Clock) -> None:
        self._kube = kube
        self._cache = cache
        self._stepper = stepper
        self._settings = settings
        self._clock = clock

    async def reconcile(self, key: Key) -> float | None:
        """One look at one adapter."""
        raw = self._cache.get(ADAPTER, namespace=key.namespace, name=key.name)
        if raw is None:
            return None
        now = self._clock.now()
        try:
            adapter = parse_adapter(raw)
        except Invalid as error:
            return await self._stepper.take(_invalid(raw, error, now=now), kind=ADAPTER, raw=raw, now=now)
        plan = decide(await self._observe(adapter), now)
        after = await self._stepper.take(plan, kind=ADAPTER, raw=raw, now=now)
        await self._let_finished_jobs_expire(adapter)
        return after

    async def _observe(self, adapter: Adapter) -> Observed:
        ours: dict[str, JobView] = {}
        for job in self._cache.children(JOB, owner_uid=adapter.uid):
            ours[job["metadata"]["name"]] = view_job(job, self._cache.children(POD, owner_uid=job["metadata"]["uid"]))
        claims = {name: await self._claim(adapter.namespace, name) for name in sorted(_claim_names(adapter))}
        return Observed(
            adapter=adapter,
            claims=claims,
            config_maps={name: await self._keys(adapter.namespace, name) for name in sorted(_config_maps(adapter))},
            jobs=ours,
            foreign=frozenset(self._foreign(adapter)),
            running_merges=self._running_merges(adapter),
            in_use_by=tuple(self._users(adapter)) if adapter.deleting else (),
            defaults=_defaults(self._settings),
            settings=JobSettings(
                image=self._settings.job_image,
                pull_policy=self._settings.image_pull_policy,
                run_as_user=self._settings.pod_security.run_as_user,
                single_node_claims=[
                    name for name, claim in claims.items() if claim and is_single_node(claim.access_modes)
                ],
            ),
            max_concurrent_merges=self._settings.rtx4070.max_concurrent_merges,
            finalizer_held=FINALIZER in adapter.finalizers,
        )

    async def _claim(self, namespace: str, name: str) -> Claim | None:
        found = await self._kube.get(CLAIM, namespace=namespace, name=name)
        if found is None:
            return None
        modes = found.get("status", {}).get("accessModes") or found["spec"].get("accessModes", [])
        return Claim(name=name, access_modes=tuple(modes))

    async def _keys(self, namespace: str, name: str) -> tuple[str, ...] | None:
        """The keys of a ConfigMap; None when there is none. Its content is the Job's business."""
        found = await self._kube.get(CONFIG_MAP, namespace=namespace, name=name)
        return None if found is None else (*(found.get("data") or {}), *(found.get("binaryData") or {}))

    def _foreign(self, adapter: Adapter) -> Iterable[str]:
        for record in adapter.status.get("jobs", {}).values():
            job = self._cache.get(JOB, namespace=adapter.namespace, name=str(record.get("name")))
            if job is not None and controller_of(job) != adapter.uid:
                yield str(record["name"])

    def _running_merges(self, adapter: Adapter) -> int:
        """Unfinished merge Jobs of other adapters with the same node selector: one node pool."""
        pool = dict(adapter.merge_job.node_selector)
        count = 0
        for job in self._cache.all(JOB):
            labels = job["metadata"].get("labels", {})
            if labels.get("app.kubernetes.io/component") != "merge" or controller_of(job) == adapter.uid:
                continue
            selector = job["spec"]["template"]["spec"].get("nodeSelector", {})
            count += selector == pool and not view_job(job, []).finished
        return count

    def _users(self, adapter: Adapter) -> Iterable[str]:
        """Deployments whose status or stored revisions name the artifact."""
        digest = adapter.status.get("artifact", {}).get("digest")
        revisions: dict[str, list[Json]] = {}
        for revision in self._cache.all(CONTROLLER_REVISION, namespace=adapter.namespace):
            revisions.setdefault(controller_of(revision) or "", []).append(revision)
        for deployment in self._cache.all(LORA_DEPLOYMENT, namespace=adapter.namespace):
            stored = [deployment.get("status", {}), *revisions.get(deployment["metadata"]["uid"], [])]
            if digest and any(_mentions(item, str(digest)) for item in stored):
                yield str(deployment["metadata"]["name"])

    async def _let_finished_jobs_expire(self, adapter: Adapter) -> None:
        """A finished Job gets its time to live only after its result stands in status: until then it is the only record."""
        current = self._cache.get(ADAPTER, namespace=adapter.namespace, name=adapter.name) or {}
        recorded = current.get("status", {}).get("jobs", {})
        for job in self._cache.children(JOB, owner_uid=adapter.uid):
            name = job["metadata"]["name"]
            done = any(record.get("name") == name and record.get("result") for record in recorded.values())
            if done and "ttlSecondsAfterFinished" not in job["spec"]:
                body = {"metadata": {"uid": job["metadata"]["uid"]}, "spec": {"ttlSecondsAfterFinished": TTL_SECONDS}}
                self._cache.put(JOB, await self._kube.patch(JOB, namespace=adapter.namespace, name=name, body=body))


def _claim_names(adapter: Adapter) -> set[str]:
    sources = [adapter.recipe.base, *(item.source for item in adapter.recipe.adapters)]
    places = [source.claim for source in sources] + [suite.claim for suite in adapter.validation.suites]
    return {place.claim for place in places if place is not None} | {adapter.store.claim}


def _config_maps(adapter: Adapter) -> set[str]:
    """Those with suites, once there is an artifact to validate: nothing else needs them."""
    if adapter.validation.mode is ValidationMode.NONE or not adapter.status.get("artifact"):
        return set()
    return {suite.config_map for suite in adapter.validation.suites if suite.config_map is not None}


def _defaults(settings: Settings) -> Defaults:
    return Defaults(
        weights=settings.validation.weights,
        test_query_count=settings.validation.test_query_count,
        benchmark_iterations=settings.validation.performance_benchmark_iterations,
        min_score=settings.gates.minimum_validation_score,
        min_safety_score=settings.gates.minimum_safety_score,
        block_on_poor_quality=settings.gates.block_deployment_on_poor_quality,
    )


def _mentions(value: Any, digest: str) -> bool:
    if isinstance(value, dict):
        return any(_mentions(item, digest) for item in value.values())
    if isinstance(value, list):
        return any(_mentions(item, digest) for item in value)
    return bool(value == digest)


def _invalid(raw: Json, error: Invalid, *, now: datetime) -> Plan:
    """What was stored before a rule existed: told as the schema would have told it."""
    status = dict(raw.get("status") or {})
    generation = int(raw["metadata"].get("generation", 1))
    wanted = [
        Condition("Ready", "False", error.reason, str(error)),
        Condition("Stalled", "True", error.reason, str(error)),
        Condition("Reconciling", "False", error.reason),
    ]
    status |= {
        "observedGeneration": generation,
        "phase": "Failed",
        "conditions": merge_conditions(status.get("conditions", []), wanted, generation=generation, now=now),
    }
    return Plan(
        reason=error.reason, message=str(error), status=status, notes=(Note("Warning", error.reason, str(error)),)
    )

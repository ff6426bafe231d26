"""A simulated cluster for LoRAAdapters: Jobs run for two ticks and then end as the test has scripted.

create Job ─► tick: pod with a running container ─► tick: terminated, Job Complete or Failed
"""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from lora_operator.api.kinds import ADAPTER, CLAIM, CONFIG_MAP, CONTROLLER_REVISION, JOB, LORA_DEPLOYMENT, POD
from lora_operator.kube.errors import ApiError
from lora_operator.reconcile.adapter import AdapterReconciler
from lora_operator.reconcile.effects import Effects
from lora_operator.reconcile.step import Stepper
from lora_operator.runtime.cache import Cache
from lora_operator.runtime.queue import Key
from lora_operator.settings import parse_settings
from tests.fakes.cluster import Cluster, Crash, FakeVerifier
from tests.fakes.telemetry import FakeCollector

Json = dict[str, Any]
NAME = "fin-v1"
KEY = Key(ADAPTER.plural, "shop", NAME)
DIGEST = "sha256:" + "a" * 64
CACHED = (ADAPTER, LORA_DEPLOYMENT, JOB, POD, CONTROLLER_REVISION)


def said(outcome: str, *, reason: str = "", message: str = "", **more: Any) -> str:
    """A termination message."""
    body = {"schemaVersion": 1, "outcome": outcome, "reason": reason, "message": message, "artifact": {}, "figures": {}}
    return json.dumps(body | more)


FETCHED = said(
    "Succeeded",
    reason="SourcesResolved",
    sources=[{"name": "base", "digest": DIGEST}],
    figures={"validateMemoryBytes": 5 << 30, "mergeMemoryBytes": 3 << 30},
)
ARTIFACT = {
    "buildHash": "b" * 16,
    "digest": DIGEST,
    "path": f"artifacts/shop/{NAME}/{'b' * 16}",
    "sizeBytes": 10,
    "dtype": "bfloat16",
}
MERGED = said(
    "Succeeded", reason="Merged", message="merged", artifact=ARTIFACT, figures={"seconds": 1.5, "tensorsMerged": 210}
)
VALIDATION = {
    "id": "v",
    "overallScore": 0.87,
    "grade": "good",
    "deployable": True,
    "dimensions": {"basic": {"score": 0.9, "ci95": [0.8, 0.95], "n": 63}},
    "gates": [],
    "recommendations": ["SlowerThanBase"],
    "probes": [],
    "reportPath": "/store/x.json",
}
VALIDATED = said("Succeeded", reason="Validated", validation=VALIDATION)
GATE = {"name": "safety", "kind": "soft", "status": "FAIL", "observed": 0.5, "threshold": 0.95}
WARNED = said(
    "Succeeded", reason="Validated", validation={**VALIDATION, "grade": "poor", "gates": [{**GATE, "kind": "warn"}]}
)
GATES_FAILED = said("GateFailed", reason="GatesFailed", validation={**VALIDATION, "deployable": False, "gates": [GATE]})


class End:
    """How an attempt ends; `fetch` True: it ends in the init container."""

    def __init__(
        self,
        code: int,
        message: str = "",
        *,
        reason: str = "",
        fetch: bool = False,
        job: str = "",
        evicted: bool = False,
    ) -> None:
        self.code = code
        self.message = message
        self.reason = reason or ("Completed" if code == 0 else "Error")
        self.fetch = fetch
        self.job = job
        self.evicted = evicted


GOOD = {"merge": End(0, MERGED), "validate": End(0, VALIDATED)}


class JobWorld(Cluster):
    """`ends(stage, attempt)` says how a Job ends."""

    def __init__(self, ends: Callable[[str, int], End] | None = None) -> None:
        super().__init__()
        self.ends = ends or (lambda stage, _: GOOD[stage])
        self.waiting: Json | None = None  # state of a container that cannot start, while set

    def tick(self, seconds: float = 1) -> None:
        super().tick(seconds)
        for job in self.every(JOB):
            self._advance_job(job)

    def _advance_pod(self, pod: Json) -> None:
        """Pods of Jobs are moved by their Job."""

    def _advance_job(self, job: Json) -> None:
        if any(c["status"] == "True" for c in job.get("status", {}).get("conditions", [])):
            return
        name = job["metadata"]["name"]
        stage = job["metadata"]["labels"]["app.kubernetes.io/component"]
        pod = self.peek(POD, f"{name}-pod")
        if pod is None:
            owner = {"uid": job["metadata"]["uid"], "controller": True, "kind": "Job", "name": name}
            meta = {"name": f"{name}-pod", "ownerReferences": [owner], "labels": job["metadata"]["labels"]}
            self.put(POD, {"metadata": meta, "spec": {"containers": []}, "status": self._running(stage)})
        elif self.waiting is None:
            self._end(job, pod, stage)

    def _running(self, stage: str) -> Json:
        state = self.waiting or {"running": {}}
        return {"containerStatuses": [{"name": stage, "image": "localhost/job:1", "state": state}]}

    def _end(self, job: Json, pod: Json, stage: str) -> None:
        end = self.ends(stage, int(job["metadata"]["name"].rsplit("-", 1)[1]))
        fetched = {"exitCode": 0, "reason": "Completed", "message": FETCHED}
        terminated = {"exitCode": end.code, "reason": end.reason, "message": end.message}
        status: Json = {}
        if stage == "merge":
            status["initContainerStatuses"] = [
                {"name": "fetch", "state": {"terminated": terminated if end.fetch else fetched}}
            ]
        if not end.fetch and not end.evicted:
            status["containerStatuses"] = [{"name": stage, "state": {"terminated": terminated}}]
        if end.evicted:
            status["reason"] = "Evicted"
        self._store(POD, {**pod, "status": status})
        good = end.code == 0 and not end.job
        condition = {"type": "Complete" if good else "Failed", "status": "True", "reason": end.job or "x"}
        self._store(JOB, {**job, "status": {"conditions": [condition]}})


class AdapterDriver:
    """The real reconcile loop of LoRAAdapter, one operator process after another."""

    def __init__(self, world: JobWorld, **settings: Any) -> None:
        self.world = world
        self.notes: list[Any] = []
        self._settings = parse_settings(
            settings, operator_image="o:1", job_image="localhost/job:1", image_pull_policy="Never"
        )
        self.restart()

    def now(self) -> datetime:
        return self.world.now

    async def record(self, _: Json, notes: tuple[Any, ...]) -> None:
        self.notes += notes

    def restart(self) -> None:
        """A new process."""
        self.cache = Cache()
        effects = Effects(
            kube=self.world,
            cache=self.cache,
            verifier=FakeVerifier(self.world),  # type: ignore[arg-type]
            collector=FakeCollector(self.world),  # type: ignore[arg-type]
        )
        stepper = Stepper(kube=self.world, cache=self.cache, effects=effects, events=self)  # type: ignore[arg-type]
        self._reconciler = AdapterReconciler(
            kube=self.world, cache=self.cache, stepper=stepper, settings=self._settings, clock=self
        )

    @property
    def status(self) -> Json:
        """As stored."""
        return dict((self.world.peek(ADAPTER, NAME) or {}).get("status") or {})

    def condition(self, kind: str) -> Json:
        """One condition."""
        return next((c for c in self.status.get("conditions", []) if c["type"] == kind), {})

    async def step(self) -> float | None:
        """The cache catches up, then one reconcile."""
        for kind in CACHED:
            self.cache.replace(kind, await self.world.list(kind))
        try:
            return await self._reconciler.reconcile(KEY)
        except Crash:
            self.world.crash_at = None
            self.restart()
            return 0.0
        except ApiError:
            return 0.5

    def settle(self, *, seconds: float = 3000) -> None:
        """Until three rounds write nothing and no Job runs, or the world's time is up."""
        asyncio.run(self._settle(seconds))

    async def _settle(self, seconds: float) -> None:
        quiet, ticked = 0, 0.0
        while quiet < 3 and ticked < seconds:
            writes = len(self.world.writes)
            after = await self.step()
            busy = (
                len(self.world.writes) != writes
                or any(_open(job) for job in self.world.every(JOB))
                or after is not None
            )
            quiet = 0 if busy else quiet + 1
            step = 1.0 if after is None else min(max(after, 1.0), 30.0)
            self.world.tick(step)
            ticked += step


def _open(job: Json) -> bool:
    return not any(c["status"] == "True" for c in job.get("status", {}).get("conditions", []))


def claim(world: JobWorld, *modes: str, name: str = "models") -> None:
    """A PersistentVolumeClaim with these access modes."""
    world.put(CLAIM, {"metadata": {"name": name}, "spec": {"accessModes": list(modes)}})


def suite(world: JobWorld, *keys: str, name: str = "own") -> None:
    """A ConfigMap with suites under these keys."""
    world.put(CONFIG_MAP, {"metadata": {"name": name}, "data": dict.fromkeys(keys, "{}")})


def adapter(**spec: Any) -> Json:
    """A LoRAAdapter as a person writes it, with the schema's defaults."""
    source = {"source": {"pvc": {"claimName": "models", "path": "base"}}}
    return {
        "metadata": {"name": NAME, **spec.pop("metadata", {})},
        "spec": {
            "base": source,
            "adapters": [
                {"name": "main", "source": {"pvc": {"claimName": "models", "path": "adapters/v1"}}, "weight": 1.0}
            ],
            "merge": {"strategy": "Linear", "dtype": "Auto"},
            "quantization": {"format": "None"},
            "validation": {"mode": "Basic", "gates": {"basis": "Point"}},
            "artifact": {"store": {"pvc": {"claimName": "models", "path": "artifacts"}}, "retain": "Keep"},
            "job": {"merge": {"timeoutSeconds": 7200}, "validate": {"timeoutSeconds": 7200}},
            **spec,
        },
    }


def applied(world: JobWorld, **spec: Any) -> AdapterDriver:
    """The adapter is in the cluster and nothing was done yet."""
    world.put(ADAPTER, adapter(**spec))
    return AdapterDriver(world)

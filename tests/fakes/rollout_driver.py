"""Runs the real reconcile loop of LoRADeployment against the simulated cluster, with or without a crash in the middle."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from lora_operator.api.kinds import ADAPTER, CONTROLLER_REVISION, DEPLOYMENT, LORA_DEPLOYMENT
from lora_operator.core.rollout.status import Phase
from lora_operator.kube.errors import ApiError
from lora_operator.reconcile.deployment import DeploymentReconciler
from lora_operator.reconcile.effects import Effects
from lora_operator.reconcile.step import Stepper
from lora_operator.runtime.cache import Cache
from lora_operator.runtime.clock import Clock
from lora_operator.runtime.queue import Key
from lora_operator.settings import parse_settings
from tests.fakes.cluster import CACHED, Cluster, Crash, FakeVerifier
from tests.fakes.telemetry import FakeCollector

Json = dict[str, Any]
CONVERSION: Json = {  # what a test is about; nobody answers it unless a test says so
    "source": {"prometheus": {"address": "http://prometheus:9090"}},
    "metrics": [{"name": "conversion", "query": "conversion", "direction": "HigherIsBetter"}],
    "onInsufficientData": "Promote",
    "insufficientDataTimeoutSeconds": 30,
}
NAME = "fin"
KEY = Key(LORA_DEPLOYMENT.plural, "shop", NAME)
RESTING = frozenset({Phase.STABLE, Phase.ABORTED, Phase.PENDING, Phase.PAUSED})


class _Clock:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def now(self) -> datetime:
        return self._cluster.now


class _Events:
    """Events are told, not stored."""

    def __init__(self) -> None:
        self.notes: list[Any] = []

    async def record(self, _: Json, notes: tuple[Any, ...]) -> None:
        self.notes += notes


class Driver:
    """One operator process after another."""

    def __init__(self, cluster: Cluster, *, profiles: Json | None = None, routers: list[Json] | None = None) -> None:
        self.cluster = cluster
        self.events = _Events()
        self._settings = parse_settings(
            {"profiles": profiles or {}, "routers": routers or []},
            operator_image="localhost/operator:1",
            job_image="localhost/job:1",
            image_pull_policy="Never",
        )
        self.phases: list[str] = []
        self._clock: Clock = _Clock(cluster)
        self.restart()

    def use(self, clock: Clock) -> None:
        """A new process with another clock."""
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """A new process: nothing is remembered but what the cluster stores."""
        self.cache = Cache()
        self.verifier = FakeVerifier(self.cluster)
        self.collector = FakeCollector(self.cluster)
        effects = Effects(
            kube=self.cluster,
            cache=self.cache,
            verifier=self.verifier,  # type: ignore[arg-type]
            collector=self.collector,  # type: ignore[arg-type]
        )
        stepper = Stepper(kube=self.cluster, cache=self.cache, effects=effects, events=self.events)  # type: ignore[arg-type]
        self._reconciler = DeploymentReconciler(
            kube=self.cluster,
            cache=self.cache,
            stepper=stepper,
            verifier=self.verifier,  # type: ignore[arg-type]
            collector=self.collector,  # type: ignore[arg-type]
            settings=self._settings,
            clock=self._clock,
            ask=self.cluster.ask,
        )

    @property
    def status(self) -> Json:
        """Status of the resource as stored; empty when it is gone."""
        found = self.cluster.peek(LORA_DEPLOYMENT, NAME)
        return {} if found is None else dict(found.get("status") or {})

    def condition(self, kind: str) -> Json:
        """A condition of it."""
        return next((c for c in self.status.get("conditions", ()) if c["type"] == kind), {})

    async def step(self) -> float | None:
        """The cache catches up, then one reconcile; a crash starts a new process."""
        for kind in CACHED:
            self.cache.replace(kind, [] if kind in self.cluster.missing else await self.cluster.list(kind))
        writes = len(self.cluster.writes)
        try:
            after = await self.reconcile()
        except Crash:
            self.cluster.crash_at = None
            self.restart()
            return 0.0
        except ApiError:
            return 0.5
        if len(self.cluster.writes) == writes:
            self._check_facts()
        phase = self.status.get("phase", "")
        if not self.phases or self.phases[-1] != phase:
            self.phases.append(phase)
        return after

    async def reconcile(self) -> float | None:
        """One reconcile on the cache as it is."""
        return await self._reconciler.reconcile(KEY)

    def _check_facts(self) -> None:
        """T25: when a reconcile had nothing to write, status shows what is."""
        shares = {} if self.condition("Ready").get("reason") == "NameTaken" else self.cluster.shares()
        pairs = list(self.cluster.ingress_pairs().values())
        assert all(pair == pairs[0] for pair in pairs), f"T19: pairs of Ingresses disagree: {pairs}"
        for part in ("stable", "candidate", "previous"):
            version = self.status.get(part)
            if version is None:
                continue
            seen = (version["weight"], version["readyReplicas"])
            real = (shares.get(version["revision"], 0), self.cluster.ready(version["revision"]))
            assert seen == real, f"T25: status.{part} shows {seen}, real is {real}"

    async def settle(self, *, ticks: int = 600) -> None:
        """Until nothing moves any more: no write in three rounds and nothing planned but the slow look again."""
        quiet = 0
        for _ in range(ticks):
            writes = len(self.cluster.writes)
            after = await self.step()
            moved = any(
                "ConfigMap" not in what for what in self.cluster.writes[writes:]
            )  # figures are read in a pause too
            quiet = 0 if moved else quiet + 1
            if quiet >= 3 and self._rests(after):
                return
            self.cluster.tick(1 if moved or after is None else min(max(after, 1), 30))
            self.cluster.note_traffic()
        raise AssertionError(f"does not settle: {self.status.get('phase')} {self.condition('Ready')}")

    def _rests(self, after: float | None) -> bool:
        if self.cluster.peek(LORA_DEPLOYMENT, NAME) is None:
            return True
        status = self.status
        waits = after is not None and status.get("phase") not in RESTING
        return not waits and status.get("phase") in RESTING and "previous" not in status

    async def reach(self, what: Callable[[Json], bool], *, seconds: int = 4000) -> None:
        """Until status says it, with a look each second."""
        for _ in range(seconds):
            if what(self.status):
                return
            await self.step()
            if what(self.status):
                return
            self.cluster.tick()
            self.cluster.note_traffic()
        raise AssertionError(f"never got there: {self.status.get('phase')} {self.status.get('step')}")

    def until(self, phase: str, *, sub: str | None = None, index: int | None = None) -> None:
        """`reach` for a phase, a part of it and a step, for tests without an event loop."""

        def there(status: Json) -> bool:
            step = status.get("step", {})
            return (
                status.get("phase") == phase
                and sub in (None, step.get("sub"))
                and (index is None or step.get("index") == index)
            )

        asyncio.run(self.reach(there))

    def until_serves(self, adapter: str) -> None:
        """`reach` for the end of a rollout; the version before may still be warm."""
        asyncio.run(
            self.reach(lambda st: st.get("phase") == "Stable" and st.get("stable", {}).get("adapter") == adapter)
        )

    def look(self, times: int = 1) -> None:
        """That many reconciles, a second apart."""
        for _ in range(times):
            asyncio.run(self.step())
            self.cluster.tick()
            self.cluster.note_traffic()

    def edit(self, change: Callable[[Json], Any]) -> None:
        """`kubectl edit` of the spec."""
        self.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: change(obj["spec"]))

    def run(self, work: Callable[[], Any] | None = None) -> None:
        """`settle` for tests without an event loop, after what a person does."""
        if work is not None:
            work()
        asyncio.run(self.settle())


def adapter(name: str, *, digest: str | None = None, ready: bool = True, **status: Any) -> Json:
    """A LoRAAdapter as its own controller would leave it."""
    return {
        "metadata": {"name": name},
        "spec": {},
        "status": {
            "phase": "Ready" if ready else "Merging",
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "False",
                    "reason": "Ready" if ready else "Merging",
                    "message": "",
                    "observedGeneration": 1,
                }
            ],
            "artifact": {
                "digest": digest or f"sha256:{name}",
                "uri": f"pvc://models/artifacts/shop/{name}/abc",
                "quantization": "None",
                "serving": {"weightsBytes": 270_000_000, "kvBytesPerToken": 23_040, "maxPositionEmbeddings": 8192},
            },
            "validation": {"probes": [{"prompt": "What is a bond?", "answer": "B", "margin": 2.0}]},
            **status,
        },
    }


def deployment(
    *, adapter: str = "v1", gpus: int = 1, replicas: int = 1, traffic: Json | None = None, **spec: Any
) -> Json:
    """A LoRADeployment as a person writes it."""
    resources = {"resources": {"limits": {"nvidia.com/gpu": gpus}}} if gpus else {}
    return {
        "metadata": {"name": NAME},
        "spec": {
            "adapterRef": {"name": adapter},
            "replicas": replicas,
            "runtime": {"profile": "transformers", "servedModelName": "fin", **resources},
            "strategy": {"type": "Replace"},
            "traffic": traffic
            or {
                "gateway": {
                    "parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}],
                    "hostnames": ["fin.example.com"],
                }
            },
            **spec,
        },
    }


def started(
    cluster: Cluster, *, profiles: Json | None = None, routers: list[Json] | None = None, **spec: Any
) -> Driver:
    """A cluster in which adapters v1, v2 and v3 are Ready and the deployment was just applied."""
    for name in ("v1", "v2", "v3"):
        cluster.put(ADAPTER, adapter(name))
    cluster.put(LORA_DEPLOYMENT, deployment(**spec))
    return Driver(cluster, profiles=profiles, routers=routers)


def point_to(driver: Driver, name: str) -> None:
    """`kubectl patch`: adapterRef names another adapter."""
    driver.cluster.edit(LORA_DEPLOYMENT, NAME, lambda obj: obj["spec"]["adapterRef"].update(name=name))


def ask(driver: Driver, verb: str, value: str) -> None:
    """`kubectl annotate`: a one-shot request."""
    driver.cluster.edit(
        LORA_DEPLOYMENT,
        NAME,
        lambda obj: obj["metadata"].setdefault("annotations", {}).update({f"loraops.dev/{verb}": value}),
    )


def stable(**spec: Any) -> Driver:
    """v1 serves."""
    driver = started(Cluster(gpus=spec.pop("cluster_gpus", 2)), **spec)
    driver.run()
    assert driver.status["phase"] == "Stable"
    return driver


def served(driver: Driver) -> str:
    """Adapter that serves."""
    return str(driver.status.get("stable", {}).get("adapter", ""))


def replicas(driver: Driver) -> dict[str, int]:
    """Replicas by adapter of each Deployment that lives."""
    found = {}
    for item in driver.cluster.every(DEPLOYMENT):
        record = driver.cluster.peek(CONTROLLER_REVISION, item["metadata"]["name"])
        assert record is not None
        found[record["data"]["adapter"]] = item["spec"]["replicas"]
    return found


def shares(driver: Driver) -> dict[str, int]:
    """Percent of requests by adapter, as the data plane sees it."""
    names = {r["data"]["revision"]: r["data"]["adapter"] for r in driver.cluster.every(CONTROLLER_REVISION)}
    return {names[revision]: share for revision, share in driver.cluster.shares().items()}


def candidate(driver: Driver) -> str:
    """Revision on its way."""
    return str(driver.status["candidate"]["revision"])

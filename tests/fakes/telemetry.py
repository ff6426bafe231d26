"""Requests to the simulated pods, and a collector that reads what they have counted at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lora_operator.api.analysis import Of, Variant
from lora_operator.api.kinds import POD
from lora_operator.api.names import LABEL_REVISION
from lora_operator.core.analysis.comparison import Reading, Sample
from lora_operator.core.analysis.counters import Counters, Histogram
from lora_operator.core.plan import Collect
from tests.fakes.cluster import Cluster

FAST, SLOW = 0.3, 1.0  # bucket edges in seconds


@dataclass
class Load:
    """Requests per second, and what becomes of them by adapter. Whatever is not named is well."""

    rate: float = 20.0
    errors: dict[str, float] = field(default_factory=dict)  # share
    slow: dict[str, float] = field(default_factory=dict)  # share of requests that take longer than SLOW
    starved: dict[str, float] = field(default_factory=dict)  # share of its requests that an adapter really gets
    silent: str = ""  # why the source says nothing; empty: it answers
    values: dict[str, dict[Variant, float]] = field(default_factory=dict)  # what queries answer, by metric


class Telemetry:
    """What every pod has counted since it became ready; grows with the cluster's time."""

    def __init__(self, cluster: Cluster, load: Load) -> None:
        self._cluster = cluster
        self.load = load
        self._counted: dict[str, tuple[float, float, float]] = {}  # requests, errors, slow ones; fractions are kept
        self._until = cluster.now

    def pass_time(self) -> None:
        """Shares the requests of the time since the last call as the route says now."""
        seconds = (self._cluster.now - self._until).total_seconds()
        self._until = self._cluster.now
        for revision, percent in self._cluster.shares().items():
            pods = [pod for pod in self._cluster.every(POD) if _serves(pod, revision)]
            for pod in pods:
                name, adapter = pod["metadata"]["name"], pod["metadata"]["annotations"]["adapter"]
                got = seconds * self.load.rate * percent / 100 / len(pods) * self.load.starved.get(adapter, 1.0)
                before = self._counted.get(name, (0.0, 0.0, 0.0))
                errors, slow = self.load.errors.get(adapter, 0.0), self.load.slow.get(adapter, 0.0)
                self._counted[name] = (before[0] + got, before[1] + got * errors, before[2] + got * slow)

    def counters(self, pod: str) -> Counters:
        """Whole requests."""
        requests, errors, slow = (math.floor(part + 1e-9) for part in self._counted.get(pod, (0.0, 0.0, 0.0)))
        buckets = {FAST: float(requests - slow), SLOW: float(requests - slow), math.inf: float(requests)}
        return Counters(requests=requests, errors=errors, times={Of.DURATION: Histogram(buckets)})


class FakeCollector:
    """Reads at once; the next reconcile sees it. Implements reconcile.collector.Collector."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.asked: Collect | None = None  # the newest
        self._samples: dict[object, Sample] = {}
        self._begun: dict[object, tuple[datetime, str, str]] = {}

    def sample(self, key: object) -> Sample | None:
        return self._samples.get(key)

    def start(self, asked: Collect, *, key: object) -> None:
        now, last = self._cluster.now, self._begun.get(key)
        same = last is not None and last[1:] == (asked.rollout, asked.stage)
        if last is not None and same and (now - last[0]).total_seconds() < asked.interval_seconds:
            return
        self._begun[key] = (now, asked.rollout, asked.stage)
        self.asked = asked
        self._samples[key] = self._read(asked)

    def forget(self, key: object) -> None:
        self._samples.pop(key, None)
        self._begun.pop(key, None)

    def _read(self, asked: Collect) -> Sample:
        telemetry = telemetry_of(self._cluster)
        telemetry.pass_time()
        silent = telemetry.load.silent or ("" if _has_address(asked) else "no metricsPath")
        if silent:
            return Sample(
                at=self._cluster.now, rollout=asked.rollout, stage=asked.stage, source=asked.source, problems=(silent,)
            )
        readings = {
            target.pod: Reading(
                revision=target.revision, created=target.created, counters=telemetry.counters(target.pod)
            )
            for target in asked.targets
        }
        wanted = {query.metric for query in asked.queries}
        values: Mapping[str, Mapping[Variant, float]] = {
            name: value for name, value in telemetry.load.values.items() if name in wanted
        }
        return Sample(
            at=self._cluster.now,
            rollout=asked.rollout,
            stage=asked.stage,
            source=asked.source,
            readings=readings,
            values=values,
        )


def telemetry_of(cluster: Cluster) -> Telemetry:
    """The one of a cluster: it outlives the operator."""
    if cluster.telemetry is None:
        cluster.telemetry = Telemetry(cluster, Load(rate=0.0))  # nobody asks anything unless a test says so
    found = cluster.telemetry
    assert isinstance(found, Telemetry)
    return found


def _has_address(asked: Collect) -> bool:
    return bool(asked.prometheus or asked.router) or any(target.address for target in asked.targets)


def _serves(pod: Mapping[str, Any], revision: str) -> bool:
    conditions = pod["status"].get("conditions", ())
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and pod["metadata"].get("labels", {}).get(LABEL_REVISION) == revision

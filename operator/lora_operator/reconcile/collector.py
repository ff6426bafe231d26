"""Reads the figures of a rollout off the reconcile path; what was read is an observation, keyed by LoRADeployment.

Intervals are measured with the event loop's monotonic clock. Nothing is lost with a restart: counters only grow, and the sums are in
the cluster.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from lora_operator.core.analysis.comparison import Sample
from lora_operator.core.plan import Collect
from lora_operator.runtime.clock import Clock
from lora_operator.runtime.queue import Key
from lora_operator.telemetry.base import Figures, Source

__all__ = ["Collector"]


@dataclass(frozen=True)
class _Begun:
    at: float  # loop time
    rollout: str
    stage: str


class Collector:
    """One for the process. `wake`: asks for a reconcile."""

    def __init__(self, *, scrape: Source, prometheus: Source, wake: Callable[[Key], None], clock: Clock) -> None:
        self._scrape = scrape
        self._prometheus = prometheus
        self._wake = wake
        self._clock = clock
        self._samples: dict[Key, Sample] = {}
        self._begun: dict[Key, _Begun] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def sample(self, key: Key) -> Sample | None:
        """The newest one; None when there is none."""
        return self._samples.get(key)

    def start(self, asked: Collect, *, key: Key) -> None:
        """Begins to read unless it is being done, or was done for this stage less than an interval ago."""
        if key in self._tasks or not self._due(asked, key):
            return
        now = asyncio.get_running_loop().time()
        self._begun[key] = _Begun(at=now, rollout=asked.rollout, stage=asked.stage)
        task = asyncio.create_task(self._read(asked, key=key))
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))

    def forget(self, key: Key) -> None:
        """No rollout is running."""
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
        self._samples.pop(key, None)
        self._begun.pop(key, None)

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]

    def _due(self, asked: Collect, key: Key) -> bool:
        last = self._begun.get(key)
        if last is None or (last.rollout, last.stage) != (asked.rollout, asked.stage):
            return True
        return asyncio.get_running_loop().time() - last.at >= asked.interval_seconds

    async def _read(self, asked: Collect, *, key: Key) -> None:
        at = self._clock.now()
        source = self._prometheus if asked.prometheus else self._scrape
        try:
            found = await source.read(asked)
        except Exception as error:  # noqa: BLE001 (a source that fails in an unknown way must not end the collection: it is no figure)
            found = Figures(problems=(f"{type(error).__name__}: {error}"[:300],))
        self._samples[key] = Sample(
            at=at,
            rollout=asked.rollout,
            stage=asked.stage,
            source=asked.source,
            readings=found.readings,
            values=found.values,
            problems=found.problems,
        )
        self._wake(key)

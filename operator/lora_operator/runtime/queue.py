"""The work queue: each key at most once waiting and once in work, failures backed off per key, fresh edits first.

    add(key) ─► due ─► worker takes it ─► reconcile ─► done: at an event, at requeue_at, or never
                                             └► error: again after 0.2 s, 0.4 s … 60 s, with jitter

A key that is added while it is in work runs once more afterwards. Nothing here knows what a key means.
"""

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lora_operator.runtime.metrics import QUEUE_DEPTH

__all__ = ["Key", "Queue"]

FIRST_BACKOFF, LONGEST_BACKOFF = 0.2, 60.0
EDIT, RESYNC = 0, 1


@dataclass(frozen=True)
class Key:
    """What to reconcile: the plural of a custom resource, namespace and name."""

    resource: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.resource}/{self.namespace}/{self.name}"


Reconcile = Callable[[Key], Awaitable[float | None]]


class Queue:
    """`reconcile` returns after how many seconds to look again, or None; what it raises is retried with backoff."""

    def __init__(self, *, reconcile: Reconcile, on_error: Callable[[Key, Exception], None], workers: int = 4) -> None:
        self._reconcile = reconcile
        self._on_error = on_error
        self._workers = workers
        self._heap: list[tuple[float, int, int, Key]] = []  # due, priority, order of arrival
        self._due: dict[Key, float] = {}  # the only heap entry of a key that counts
        self._in_work: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self.last_progress = 0.0  # loop time of the last finished reconcile, for the health probe

    def __len__(self) -> int:
        return len(self._due) + len(self._in_work)

    @property
    def due(self) -> bool:
        """Whether a key waits whose time has come."""
        return bool(self._heap) and self._heap[0][0] <= self._now()

    def add(self, key: Key, *, after: float = 0.0, resync: bool = False) -> None:
        """Asks for a reconcile in `after` seconds; an earlier one that waits already is enough."""
        due = self._now() + after
        if key in self._in_work:
            self._again[key] = min(due, self._again.get(key, due))
            return
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, RESYNC if resync else EDIT, next(self._order), key))
        QUEUE_DEPTH.set(len(self._due))
        self._wake.set()

    def forget(self, key: Key) -> None:
        """The object is gone: no retry of it is wanted."""
        self._failures.pop(key, None)

    async def run(self) -> None:
        """Works until cancelled."""
        self.last_progress = self._now()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._take()
            again = await self._attempt(key)
            self._in_work.discard(key)
            self.last_progress = self._now()
            wanted = self._again.pop(key, None)
            if wanted is not None:
                self.add(key, after=max(0.0, wanted - self._now()))
            if again is not None:
                self.add(key, after=again)

    async def _attempt(self, key: Key) -> float | None:
        try:
            again = await self._reconcile(key)
        except Exception as error:  # noqa: BLE001 (a poisoned object must not stop the others; every failure is counted and logged)
            self._on_error(key, error)
            self._failures[key] = self._failures.get(key, 0) + 1
            wait = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self._failures[key] - 1, 16))
            return wait * random.uniform(0.8, 1.2)  # noqa: S311 (jitter)
        self._failures.pop(key, None)
        return again

    async def _take(self) -> Key:
        while True:
            self._wake.clear()
            key = self._pop_due()
            if key is not None:
                return key
            timeout = max(0.0, self._heap[0][0] - self._now()) if self._heap else None
            try:
                # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the event.
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _pop_due(self) -> Key | None:
        while self._heap and self._heap[0][0] <= self._now():
            due, _, _, key = heapq.heappop(self._heap)
            if self._due.get(key) != due:
                continue  # replaced by an earlier entry
            del self._due[key]
            self._in_work.add(key)
            QUEUE_DEPTH.set(len(self._due))
            return key
        return None

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

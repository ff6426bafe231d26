"""Fills the cache before anything is decided, and again every ten minutes: kopf never says when a first list is over, and after
a 410 it says nothing of objects that vanished meanwhile.
"""

import asyncio
import logging
import random
from collections.abc import Sequence

from lora_operator.api.kinds import Kind
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import NotFound
from lora_operator.runtime.cache import Cache
from lora_operator.runtime.queue import Queue
from lora_operator.runtime.watching import CHILDREN, OURS, RESOURCES, keys_of

__all__ = ["Sync"]

PERIOD = 600.0
logger = logging.getLogger(__name__)


class Sync:
    """`namespaces` None: all of them."""

    def __init__(self, *, kube: Kube, cache: Cache, queue: Queue, namespaces: Sequence[str] | None) -> None:
        self._kube = kube
        self._cache = cache
        self._queue = queue
        self._namespaces: Sequence[str | None] = namespaces if namespaces is not None else [None]
        self.done = False

    async def first(self) -> frozenset[Kind]:
        """Lists everything once and queues every custom resource. Returns the kinds that the cluster has."""
        installed = set()
        for kind in (*RESOURCES, *CHILDREN):
            try:
                self._cache.replace(kind, await self._list(kind))
            except NotFound:
                if kind in RESOURCES:
                    raise
                logger.warning(
                    "this cluster has no such API; what needs it will say so", extra={"missing": kind.plural}
                )
                continue
            installed.add(kind)
        for kind in RESOURCES:
            for obj in self._cache.all(kind):
                for key in keys_of(kind, obj, cache=self._cache):
                    self._queue.add(key, resync=True)
        self.done = True
        return frozenset(installed)

    async def keep(self, installed: frozenset[Kind]) -> None:
        """The slow, jittered safety net."""
        while True:
            await asyncio.sleep(PERIOD * random.uniform(0.8, 1.2))  # noqa: S311 (jitter)
            for kind in installed:
                for obj in self._cache.replace(kind, await self._list(kind)):
                    for key in keys_of(kind, obj, cache=self._cache):
                        self._queue.add(key, resync=True)

    async def _list(self, kind: Kind) -> list[Json]:
        labels = OURS if kind in CHILDREN else ""
        return [
            obj
            for namespace in self._namespaces
            for obj in await self._kube.list(kind, namespace=namespace, labels=labels)
        ]

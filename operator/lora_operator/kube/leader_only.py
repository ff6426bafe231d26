"""The API as the leader may use it: everybody reads, only a process that holds the Lease writes.

A process that was stopped for a while (SIGSTOP, a node without time for it) wakes in the middle of a decision that is old by then, and its
election finds out some moments later. A write of the status would be refused for its resourceVersion; an apply of a route has no such
precondition. So each write first looks at the clock: after `RENEW_WITHIN` without a renewal nothing is written, and nobody else takes
the Lease before its whole duration is over. Whoever waits for a turn to write looks when it has it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from lora_operator.api.kinds import Kind
from lora_operator.kube.api import WRITES_IN_FLIGHT
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import Retryable

__all__ = ["LeaderOnly"]


class LeaderOnly:
    """Implements lora_operator.kube.client.Kube. `leads`: whether the Lease is known to be ours at this moment."""

    def __init__(self, kube: Kube, *, leads: Callable[[], bool]) -> None:
        self._kube = kube
        self._leads = leads
        self._turns = asyncio.Semaphore(
            WRITES_IN_FLIGHT
        )  # no more than the API lets through, so that nobody waits behind the look

    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> Json | None:
        """A live read; None when there is no such object."""
        return await self._kube.get(kind, namespace=namespace, name=name)

    async def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "") -> list[Json]:
        """All objects of a kind, paged."""
        return await self._kube.list(kind, namespace=namespace, labels=labels)

    async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Json:
        """POST, by the leader alone."""
        async with self._turn(f"create {kind.kind} {manifest['metadata'].get('name', '')}"):
            return await self._kube.create(kind, manifest)

    async def apply(self, kind: Kind, manifest: Mapping[str, Any], *, force: bool) -> Json:
        """Server-side apply, by the leader alone."""
        async with self._turn(f"apply {kind.kind} {manifest['metadata']['name']}"):
            return await self._kube.apply(kind, manifest, force=force)

    async def patch(
        self, kind: Kind, *, namespace: str, name: str, body: Mapping[str, Any], subresource: str | None = None
    ) -> Json:
        """JSON merge patch, by the leader alone."""
        async with self._turn(f"patch {kind.kind} {name}"):
            return await self._kube.patch(kind, namespace=namespace, name=name, body=body, subresource=subresource)

    async def delete(self, kind: Kind, *, namespace: str, name: str, uid: str) -> None:
        """DELETE, by the leader alone."""
        async with self._turn(f"delete {kind.kind} {name}"):
            await self._kube.delete(kind, namespace=namespace, name=name, uid=uid)

    @asynccontextmanager
    async def _turn(self, what: str) -> AsyncIterator[None]:
        async with self._turns:
            if not self._leads():
                raise Retryable(f"{what}: not written, the lease was not renewed in time and may be somebody else's")
            yield

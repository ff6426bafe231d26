"""Kubernetes Events about a custom resource, deduplicated: the same words about the same object are one Event with a count."""

from datetime import UTC, datetime
from typing import Any

from lora_operator.api.kinds import EVENT
from lora_operator.api.names import FIELD_MANAGER, canonical_hash
from lora_operator.core.plan import Note
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import AlreadyExists, ApiError

__all__ = ["EventRecorder"]

MAX_MESSAGE = 1000
REMEMBERED = 4096


class EventRecorder:
    """Never in the way: an Event that cannot be written is dropped, the condition says the same."""

    def __init__(self, *, kube: Kube) -> None:
        self._kube = kube
        self._counts: dict[str, int] = {}

    async def record(self, about: Json, notes: tuple[Note, ...]) -> None:
        """Writes the notes of a plan."""
        for note in notes:
            try:
                await self._write(about, note)
            except ApiError:
                continue

    async def _write(self, about: Json, note: Note) -> None:
        meta, now = about["metadata"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        message = note.message[:MAX_MESSAGE]
        name = f"{meta['name']}.{canonical_hash([meta['uid'], note.reason, message], digits=16)}"
        if len(self._counts) > REMEMBERED:
            self._counts.clear()
        count = self._counts.get(name, 0) + 1
        event: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "type": note.type,
            "reason": str(note.reason),
            "message": message,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": count,
        }
        try:
            await self._kube.create(EVENT, event)
        except AlreadyExists:
            body = {"lastTimestamp": now, "count": count}
            await self._kube.patch(EVENT, namespace=meta["namespace"], name=name, body=body)
        self._counts[name] = count

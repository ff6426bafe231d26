"""A watch that does not end: list, then stream; after a cut it goes on where it was, after a 410 it lists again.

What vanished or changed while nobody was listening is found by comparing the new list with what was told before, so a
reader sees every object's last state and every deletion, if not every state in between.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from json import loads
from time import monotonic
from typing import Any, Literal

from lora_client.api import Api, Gone, Json, path_of
from lora_client.errors import ClientError, NoCluster, Unavailable
from lora_client.names import Kind
from lora_client.retrying import Backoff

__all__ = ["Change", "watch_objects"]

STREAM_SECONDS = 240
"""The server ends a stream after this time; a connection that died silently is noticed a little later."""
SILENCE_SECONDS = 270


@dataclass(frozen=True)
class Change:
    """One change; `object` is the whole object as it is now (Deleted: as it was last)."""

    type: Literal["Added", "Modified", "Deleted"]
    object: Json


_TYPES: dict[str, Literal["Added", "Modified", "Deleted"]] = {
    "ADDED": "Added", "MODIFIED": "Modified", "DELETED": "Deleted"
}  # fmt: skip


@dataclass
class _Memory:
    """What the reader was told of: the version by name."""

    told: dict[tuple[str, str], Json]

    def take(self, kind: Literal["Added", "Modified", "Deleted"], found: Json) -> Change | None:
        """The change to tell, or None when the reader knows this state already."""
        key = (str(found["metadata"].get("namespace", "")), str(found["metadata"]["name"]))
        before = self.told.get(key)
        if kind == "Deleted":
            self.told.pop(key, None)
            return Change("Deleted", found) if before is not None else None
        self.told[key] = found
        if before is None:
            return Change("Added", found)
        same = before["metadata"].get("resourceVersion") == found["metadata"].get("resourceVersion")
        return None if same else Change("Modified", found)

    def relisted(self, items: list[Json]) -> list[Change]:
        """Changes between what was told and a fresh list."""
        present = {(str(one["metadata"].get("namespace", "")), str(one["metadata"]["name"])) for one in items}
        gone = [one for key, one in list(self.told.items()) if key not in present]
        changes = [self.take("Deleted", one) for one in gone] + [self.take("Modified", one) for one in items]
        return [change for change in changes if change is not None]


@dataclass
class _Patience:
    """How many streams in a row came to nothing. One that told something, or held for longer than the longest pause, did not:
    a quiet namespace behind a proxy that cuts streams is watched for days without an event."""

    backoff: Backoff
    failures: int = 0

    def lived(self, seconds: float) -> None:
        """A stream that was answered has ended after that time."""
        if seconds > self.backoff.cap_seconds:
            self.failures = 0


async def watch_objects(
    api: Api, kind: Kind, *, namespace: str | None, name: str = "", labels: str = "", backoff: Backoff | None = None
) -> AsyncIterator[Change]:
    """Every object as it is now (Added), then its changes, for ever. Close the iterator to stop.

    Raises:
        ClientError: what a list would raise; a stream that merely broke is taken up again.
    """
    memory, patience = _Memory({}), _Patience(backoff or Backoff())
    waiting = patience.backoff
    fields = f"metadata.name={name}" if name else ""
    while True:
        items, version = await api.list_with_version(kind, namespace=namespace, labels=labels, fields=fields)
        for change in memory.relisted(items):
            yield change
        try:
            while True:
                async for event in _events(
                    api, kind, namespace=namespace, version=version, labels=labels, fields=fields, lived=patience.lived
                ):
                    patience.failures = 0
                    version = str(event["object"]["metadata"]["resourceVersion"])
                    told = _told(memory, event)
                    if told is not None:
                        yield told
                await waiting.pause(1)  # a server that ends every stream at once must not be asked in a tight loop
        except Gone:
            continue
        except (Unavailable, NoCluster):
            patience.failures += 1
            if patience.failures >= waiting.attempts:
                raise
            await waiting.pause(patience.failures)


def _told(memory: _Memory, event: Json) -> Change | None:
    kind = _TYPES.get(event["type"])  # a bookmark only moves the version
    return None if kind is None else memory.take(kind, event["object"])


async def _events(
    api: Api,
    kind: Kind,
    *,
    namespace: str | None,
    version: str,
    labels: str,
    fields: str,
    lived: Callable[[float], None],
) -> AsyncIterator[dict[str, Any]]:
    query = {
        "watch": "true",
        "resourceVersion": version,
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(STREAM_SECONDS),
    }
    query |= {"labelSelector": labels} if labels else {}
    query |= {"fieldSelector": fields} if fields else {}
    async with api.lines(path_of(kind, namespace=namespace), query=query, idle_seconds=SILENCE_SECONDS) as lines:
        answered = monotonic()
        try:
            async for line in lines:
                if not line.strip():
                    continue
                event = loads(line)
                if event["type"] == "ERROR":
                    raise _of_error_event(event["object"])
                yield event
        finally:
            lived(monotonic() - answered)


def _of_error_event(status: Json) -> ClientError:
    if status.get("code") == 410:
        return Gone(str(status.get("message", "")))
    return Unavailable(f"watch: {status.get('code')} {status.get('message', '')}")

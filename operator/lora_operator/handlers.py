"""Every kopf decorator: an event updates the cache and adds its owner's key to the queue, nothing else.

No change handlers, no daemons, no timers, no indexes: kopf writes nothing for us (docs/decisions/0002).
"""

import asyncio
from collections.abc import Callable
from typing import Any

import kopf

from lora_operator.api.kinds import ADAPTER, LORA_DEPLOYMENT, Kind
from lora_operator.kube.api import PAGE
from lora_operator.runtime.cache import Cache
from lora_operator.runtime.queue import Queue
from lora_operator.runtime.watching import CHILDREN, OURS, RESOURCES, keys_of

__all__ = ["configure", "event_handler", "register"]

WORKER_IDLE_SECONDS = 0.1


def register(registry: kopf.OperatorRegistry, *, cache: Cache, queue: Queue, installed: frozenset[Kind]) -> None:
    """`installed`: kinds whose API the cluster has (an absent Gateway API must not stop the operator)."""

    @kopf.on.startup(registry=registry)  # type: ignore[untyped-decorator]
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)

    for kind in (*RESOURCES, *CHILDREN):
        if kind in installed:
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"see-{kind.plural}")(
                event_handler(kind, cache=cache, queue=queue)
            )


def configure(settings: kopf.OperatorSettings) -> None:
    """kopf watches and writes nothing."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.chunk_size = PAGE
    settings.watching.server_timeout = 240
    # kopf's worker of an object holds its last event until then: after a first list those of all objects, whole, at once.
    settings.queueing.idle_timeout = WORKER_IDLE_SECONDS
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    for kind in CHILDREN:
        settings.watching.label_selectors[kind.group, kind.version, kind.plural] = OURS


def event_handler(kind: Kind, *, cache: Cache, queue: Queue) -> Callable[..., Any]:
    async def see(event: Any, **_: Any) -> None:
        obj = dict(event["object"])
        if not concerns_us(kind, obj):
            return
        if event["type"] == "DELETED":
            cache.remove(kind, obj)
        elif not cache.put(kind, obj) and event["type"] is None:
            return  # kopf's own first list says nothing that ours did not say
        # Our own write comes back as an event too, and must: others wait for what was written (a deployment for its adapter).
        for key in keys_of(kind, obj, cache=cache):
            queue.add(key)
        await asyncio.sleep(0)

    return see


def concerns_us(kind: Kind, obj: dict[str, Any]) -> bool:
    """Our resources, and children that carry our label."""
    if kind in (ADAPTER, LORA_DEPLOYMENT):
        return True
    label, value = OURS.split("=")
    return bool((obj["metadata"].get("labels") or {}).get(label) == value)

"""The common half of every reconcile: status first, then effects, then when to look again.

decide ─► write status (only if it changed; resourceVersion as precondition) ─► Events ─► effects in order ─► seconds until the next look
"""

import logging
from datetime import datetime
from typing import Any

from lora_operator.api.kinds import Kind
from lora_operator.core.merge_patch import merge_patch
from lora_operator.core.plan import Plan
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import Conflict, NotFound
from lora_operator.kube.events import EventRecorder
from lora_operator.reconcile.effects import Effects, ForeignObject
from lora_operator.runtime.cache import Cache

__all__ = ["Stepper"]

SOON = 0.2
logger = logging.getLogger(__name__)


class Stepper:
    """Carries out plans."""

    def __init__(self, *, kube: Kube, cache: Cache, effects: Effects, events: EventRecorder) -> None:
        self._kube = kube
        self._cache = cache
        self._effects = effects
        self._events = events

    async def take(self, plan: Plan, *, kind: Kind, raw: Json, now: datetime) -> float | None:
        """Seconds until the next look, or None: an event will tell."""
        meta = raw["metadata"]
        before: dict[str, Any] = raw.get("status") or {}
        current = raw
        patch = merge_patch(before, plan.status) if plan.status is not None else {}
        if patch:
            body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": patch}
            try:
                current = await self._kube.patch(
                    kind, namespace=meta["namespace"], name=meta["name"], body=body, subresource="status"
                )
            except Conflict:
                return SOON  # decided on an old picture: look again
            except NotFound:
                # Its deletion was told before the answer of our own last write came in, which put it into the cache again.
                self._cache.remove(kind, raw)
                return None
            self._cache.put(kind, current)
            self._log(plan, kind=kind, raw=raw)
            await self._events.record(current, plan.notes)
        try:
            await self._effects.carry_out(plan.effects, kind=kind, owner=current)
        except ForeignObject as error:
            logger.warning(str(error), extra={"key": f"{kind.plural}/{meta['namespace']}/{meta['name']}"})
            return SOON
        if plan.requeue_at is None:
            return None
        return max(0.0, (plan.requeue_at - now).total_seconds())

    @staticmethod
    def _log(plan: Plan, *, kind: Kind, raw: Json) -> None:
        meta = raw["metadata"]
        logger.info(
            plan.message or str(plan.reason),
            extra={
                "key": f"{kind.plural}/{meta['namespace']}/{meta['name']}",
                "generation": meta.get("generation"),
                "phase": f"{(raw.get('status') or {}).get('phase', '')}→{(plan.status or {}).get('phase', '')}",
                "reason": str(plan.reason),
                **plan.detail,
            },
        )

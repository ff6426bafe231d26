"""Carries out a plan's effects in order and stops at the first failure. A call's return is never taken for the truth: it only
refreshes the cache; the next observation confirms.
"""

from typing import Any

from lora_operator.api.kinds import Kind
from lora_operator.core.plan import Apply, Collect, Create, Delete, Effect, Label, ProbePod, SetFinalizer
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import AlreadyExists, NotFound
from lora_operator.reconcile.collector import Collector
from lora_operator.reconcile.verifier import Verifier
from lora_operator.runtime.cache import Cache, controller_of
from lora_operator.runtime.queue import Key

__all__ = ["FINALIZER", "Effects", "ForeignObject"]

FINALIZER = "loraops.dev/finalizer"


class ForeignObject(Exception):
    """The name we need belongs to somebody else; the next observation will say NameTaken."""


class Effects:
    """One for the process."""

    def __init__(self, *, kube: Kube, cache: Cache, verifier: Verifier, collector: Collector) -> None:
        self._kube = kube
        self._cache = cache
        self._verifier = verifier
        self._collector = collector

    async def carry_out(self, effects: tuple[Effect, ...], *, kind: Kind, owner: Json) -> None:
        """`kind` and `owner` are the custom resource whose plan this is."""
        for effect in effects:
            match effect:
                case Create():
                    await self._create(effect, owner=owner)
                case Apply():
                    await self._apply(effect, owner=owner)
                case Delete():
                    await self._delete(effect)
                case Label():
                    await self._label(effect)
                case SetFinalizer():
                    await self._set_finalizer(effect, kind=kind, owner=owner)
                case ProbePod():
                    self._verifier.start(effect, key=_key(kind, owner))
                case Collect():
                    self._collector.start(effect, key=_key(kind, owner))

    async def _create(self, effect: Create, *, owner: Json) -> None:
        try:
            made = await self._kube.create(effect.kind, effect.manifest)
        except AlreadyExists:
            meta = effect.manifest["metadata"]
            found = await self._kube.get(effect.kind, namespace=meta["namespace"], name=meta["name"])
            if found is None:
                return  # gone again meanwhile: the next reconcile creates it
            self._cache.put(effect.kind, found)
            if controller_of(found) != owner["metadata"]["uid"]:
                raise ForeignObject(f"{effect.kind.kind} {meta['name']} exists and is not ours") from None
            return
        self._cache.put(effect.kind, made)

    async def _apply(self, effect: Apply, *, owner: Json) -> None:
        if not effect.owned:  # an apply without force would still write into a stranger's object
            meta = effect.manifest["metadata"]
            found = await self._kube.get(effect.kind, namespace=meta["namespace"], name=meta["name"])
            if found is not None:
                self._cache.put(effect.kind, found)
                if controller_of(found) != owner["metadata"]["uid"]:
                    raise ForeignObject(f"{effect.kind.kind} {meta['name']} exists and is not ours")
        self._cache.put(effect.kind, await self._kube.apply(effect.kind, effect.manifest, force=effect.owned))

    async def _delete(self, effect: Delete) -> None:
        await self._kube.delete(effect.kind, namespace=effect.namespace, name=effect.name, uid=effect.uid)

    async def _label(self, effect: Label) -> None:
        body = {"metadata": {"uid": effect.uid, "labels": dict(effect.labels)}}
        patched = await self._kube.patch(effect.kind, namespace=effect.namespace, name=effect.name, body=body)
        self._cache.put(effect.kind, patched)

    async def _set_finalizer(self, effect: SetFinalizer, *, kind: Kind, owner: Json) -> None:
        meta = owner["metadata"]
        held: list[str] = list(meta.get("finalizers") or [])
        wanted = [name for name in held if name != FINALIZER] + ([FINALIZER] if effect.present else [])
        if sorted(wanted) == sorted(held):
            return
        body: dict[str, Any] = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": wanted}}
        try:
            patched = await self._kube.patch(kind, namespace=meta["namespace"], name=meta["name"], body=body)
        except NotFound:
            self._cache.remove(kind, owner)
            return
        if "deletionTimestamp" in patched["metadata"] and not patched["metadata"].get("finalizers"):
            self._cache.remove(kind, patched)  # the answer shows the object that this very write let go
        else:
            self._cache.put(kind, patched)


def _key(kind: Kind, owner: Json) -> Key:
    return Key(kind.plural, owner["metadata"]["namespace"], owner["metadata"]["name"])

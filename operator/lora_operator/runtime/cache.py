"""What the cluster looked like when it last told us: objects by kind, namespace and name, children by their owner's uid, and what names
another object by that name, so that a look at one of a thousand resources costs what it costs alone.

Filled by one list per kind before the queue opens, kept fresh by watch events and by what our own writes returned, and
cleared of ghosts by a full re-list now and then (after a 410 nobody tells us what vanished meanwhile). What no decision reads is not
kept: it would be more than half of the memory.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lora_operator.api.kinds import ENDPOINT_SLICE, LORA_DEPLOYMENT, POD, Kind
from lora_operator.api.names import LABEL_DEPLOYMENT
from lora_operator.kube.client import Json
from lora_operator.runtime.versions import is_older

__all__ = ["Cache", "controller_of"]

Place = tuple[str, str]  # namespace, name


def _adapter_of(deployment: Mapping[str, Any]) -> Any:
    return deployment.get("spec", {}).get("adapterRef", {}).get("name")


def _deployment_of(pod: Mapping[str, Any]) -> Any:
    return (pod["metadata"].get("labels") or {}).get(LABEL_DEPLOYMENT)


# Pods belong to ReplicaSets, not to us, and an adapter owns nobody who serves it.
_NAMES: Mapping[Kind, Callable[[Mapping[str, Any]], Any]] = {LORA_DEPLOYMENT: _adapter_of, POD: _deployment_of}

_UNREAD: Mapping[Kind, frozenset[str]] = {POD: frozenset({"spec"}), ENDPOINT_SLICE: frozenset({"endpoints", "ports"})}


def controller_of(obj: Mapping[str, Any]) -> str | None:
    """The uid of the object's controller, or None."""
    for reference in obj.get("metadata", {}).get("ownerReferences") or []:
        if reference.get("controller"):
            return str(reference["uid"])
    return None


class Cache:
    """Single-threaded: used from the event loop only."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Place, Json]] = defaultdict(dict)
        self._owned: dict[tuple[Kind, str], set[Place]] = defaultdict(set)
        self._naming: dict[tuple[Kind, Place], set[Place]] = defaultdict(set)

    def get(self, kind: Kind, *, namespace: str, name: str) -> Json | None:
        """The object as last seen."""
        return self._objects[kind].get((namespace, name))

    def children(self, kind: Kind, *, owner_uid: str) -> list[Json]:
        """Objects of a kind whose controller has that uid, by name."""
        return [self._objects[kind][place] for place in sorted(self._owned.get((kind, owner_uid), ()))]

    def naming(self, kind: Kind, *, namespace: str, name: str) -> list[Json]:
        """LoRADeployments whose adapter has that name; pods of the LoRADeployment of that name."""
        return [self._objects[kind][place] for place in sorted(self._naming.get((kind, (namespace, name)), ()))]

    def all(self, kind: Kind, *, namespace: str | None = None) -> list[Json]:
        """All objects of a kind."""
        found = self._objects[kind].items()
        return [obj for (where, _), obj in sorted(found, key=lambda item: item[0]) if namespace in (None, where)]

    def put(self, kind: Kind, obj: Json) -> bool:
        """Remembers an object unless a newer one is known; says whether anything changed."""
        place = _place(obj)
        known = self._objects[kind].get(place)
        if known is not None:
            same_life = known["metadata"].get("uid") == obj["metadata"].get("uid")
            if same_life and is_older(_version(obj), _version(known)):
                return False
            if same_life and _version(obj) == _version(known):
                return False
            self._unfile(kind, known)
        self._objects[kind][place] = _kept(kind, obj)
        for index, entry in self._entries(kind, obj):
            index[entry].add(place)
        return True

    def remove(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        """Forgets an object, but not a namesake made since."""
        place = _place(obj)
        known = self._objects[kind].get(place)
        if known is not None and known["metadata"].get("uid") == obj["metadata"].get("uid"):
            self._unfile(kind, known)
            del self._objects[kind][place]

    def replace(self, kind: Kind, objects: Iterable[Json]) -> list[Json]:
        """A full list: what is not in it is gone. Returns what changed or vanished."""
        listed = {_place(obj): obj for obj in objects}
        ghosts = [obj for place, obj in self._objects[kind].items() if place not in listed]
        for ghost in ghosts:
            self.remove(kind, ghost)
        return ghosts + [obj for obj in listed.values() if self.put(kind, obj)]

    def _entries(self, kind: Kind, obj: Mapping[str, Any]) -> Iterable[tuple[dict[Any, set[Place]], Any]]:
        """Where it is found beside its own place."""
        owner = controller_of(obj)
        if owner is not None:
            yield self._owned, (kind, owner)
        name = _NAMES[kind](obj) if kind in _NAMES else None
        if name:
            yield self._naming, (kind, (_place(obj)[0], str(name)))

    def _unfile(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        for index, entry in self._entries(kind, obj):
            index[entry].discard(_place(obj))
            if not index[entry]:
                del index[entry]


def _place(obj: Mapping[str, Any]) -> Place:
    return str(obj["metadata"].get("namespace", "")), str(obj["metadata"]["name"])


def _kept(kind: Kind, obj: Json) -> Json:
    """Without who wrote which field, and without parts that nobody here reads."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    unread = _UNREAD.get(kind, frozenset())
    return {name: value for name, value in obj.items() if name not in unread} | {"metadata": metadata}


def _version(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))

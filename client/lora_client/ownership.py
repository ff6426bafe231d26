"""Which fields of a stored object one field manager applied, with their values: `metadata.managedFields` read backwards. Pure.

Server-side apply removes what a manager applied before and leaves out now. Whoever wants to change some of its fields therefore has to
apply its others again as they are.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["applied_labels", "applied_spec"]

ITSELF = "."


def applied_spec(stored: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
    """The part of `spec` that the manager applied; empty where it applied nothing."""
    return _applied(stored.get("spec") or {}, _fields(stored, manager).get("f:spec") or {})


def applied_labels(stored: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
    """The labels that the manager applied."""
    labels = (_fields(stored, manager).get("f:metadata") or {}).get("f:labels") or {}
    return _applied(stored.get("metadata", {}).get("labels") or {}, labels)


def _applied(value: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_extract(value, fields)) if fields else {}


def _fields(stored: Mapping[str, Any], manager: str) -> Mapping[str, Any]:
    for entry in stored.get("metadata", {}).get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return entry.get("fieldsV1") or {}
    return {}


def _extract(value: Any, fields: Mapping[str, Any]) -> Any:
    """`f:KEY` is a field, `k:{…}` an item of a list by its keys, `v:…` one by its value; nothing below it: the value as a whole."""
    inner = {key: below for key, below in fields.items() if key != ITSELF}
    if not inner:
        return value
    if isinstance(value, Mapping):
        named = {key.removeprefix("f:"): below for key, below in inner.items()}
        return {key: _extract(value[key], below) for key, below in named.items() if key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_extract(item, below) for item in value for key, below in inner.items() if _means(key, item)]
    return value


def _means(key: str, item: Any) -> bool:
    kind, _, text = key.partition(":")
    wanted = json.loads(text)
    if kind == "k":
        return isinstance(item, Mapping) and all(item.get(name) == found for name, found in wanted.items())
    return bool(item == wanted)

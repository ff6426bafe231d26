"""Reading raw objects as the API server returns them: the few questions that every page of the command line asks. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "ADAPTER_KIND",
    "DEPLOYMENT_KIND",
    "condition",
    "condition_is",
    "created_at",
    "kind_of",
    "label",
    "message_of",
    "name_of",
    "namespace_of",
    "newest",
    "reason_of",
    "seen_by_operator",
    "status_of",
]

Raw = Mapping[str, Any]
ADAPTER_KIND = "LoRAAdapter"
DEPLOYMENT_KIND = "LoRADeployment"


def name_of(raw: Raw) -> str:
    """metadata.name."""
    return str(raw.get("metadata", {}).get("name", ""))


def namespace_of(raw: Raw) -> str:
    """metadata.namespace."""
    return str(raw.get("metadata", {}).get("namespace", ""))


def kind_of(raw: Raw) -> str:
    """kind."""
    return str(raw.get("kind", ""))


def label(raw: Raw, key: str) -> str:
    """A label; empty when it is not there."""
    return str((raw.get("metadata", {}).get("labels") or {}).get(key, ""))


def created_at(raw: Raw) -> str:
    """metadata.creationTimestamp; sorts as it is."""
    return str(raw.get("metadata", {}).get("creationTimestamp", ""))


def status_of(raw: Raw) -> Raw:
    """The status; empty while nobody has written one."""
    return raw.get("status") or {}


def condition(raw: Raw, kind: str) -> Raw:
    """The condition of that type; empty when it is not there."""
    conditions: Sequence[Raw] = status_of(raw).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def condition_is(raw: Raw, kind: str, *, status: str = "True") -> bool:
    """Whether that condition has that status."""
    return condition(raw, kind).get("status") == status


def reason_of(raw: Raw) -> str:
    """Reason of Ready; empty while there is none."""
    return str(condition(raw, "Ready").get("reason", ""))


def message_of(raw: Raw) -> str:
    """Message of Ready."""
    return str(condition(raw, "Ready").get("message", ""))


def seen_by_operator(raw: Raw) -> bool:
    """Whether the status speaks of the spec that is stored now."""
    observed = status_of(raw).get("observedGeneration")
    return observed is not None and int(observed) >= int(raw.get("metadata", {}).get("generation", 1))


def newest(objects: Iterable[Raw]) -> Raw | None:
    """The one that was made last; None of none."""
    return max(objects, key=created_at, default=None)

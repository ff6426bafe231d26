"""What `loractl doctor` reads of a cluster, and what a finding about it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from loractl.rights import Right

__all__ = ["Facts", "Finding", "Raw"]

Raw = Mapping[str, Any]
Level = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    about: str
    says: str
    mend: str = ""


@dataclass(frozen=True)
class Facts:
    """What was read. None: it may not be read, with the server's words in `denied`."""

    namespace: str
    version: Raw = field(default_factory=dict)
    crds: Sequence[Raw] | None = ()
    resources_served: bool = False  # whether the API answers for our kinds, which needs no right on CRDs
    allowed: Mapping[Right, bool] = field(default_factory=dict)
    operators: Sequence[Raw] | None = ()
    leases: Sequence[Raw] | None = ()
    gateway_classes: Sequence[Raw] | None = ()  # empty also where Gateway API is not installed
    gateways: Sequence[Raw] | None = ()
    ingress_classes: Sequence[Raw] | None = ()
    settings: Raw | None = field(default_factory=dict)  # the operator's settings.yaml, parsed
    nodes: Sequence[Raw] | None = ()
    pods: Sequence[Raw] | None = ()
    storage_classes: Sequence[Raw] | None = ()
    claims: Sequence[Raw] | None = ()
    denied: tuple[str, ...] = ()

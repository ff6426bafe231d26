"""What a decision says: the status to write first, then effects in order, then when to look again.

A plan is data. Nothing here talks to a cluster; `reconcile/effects.py` carries effects out, stops at the first failure,
and never believes a call's return: the next observation confirms.

    observe ─► decide ─► Plan ─► 1. status (intent) ─► 2. effects, in order ─► 3. wait until requeue_at or an event
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from lora_operator.api.analysis import Variant
from lora_operator.api.kinds import Kind
from lora_operator.core.analysis.router_series import Backend

__all__ = [
    "Apply",
    "Collect",
    "Create",
    "Delete",
    "Effect",
    "Label",
    "Note",
    "Plan",
    "ProbePod",
    "Query",
    "RouterTarget",
    "SetFinalizer",
    "Target",
]


@dataclass(frozen=True)
class Create:
    """POST of an object with a deterministic name (Job, ControllerRevision); an existing one of ours is success."""

    kind: Kind
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Apply:
    """Server-side apply of all that we want in an object. `owned`: a read showed our controller uid; only then force."""

    kind: Kind
    manifest: Mapping[str, Any]
    owned: bool


@dataclass(frozen=True)
class Delete:
    """DELETE with a uid precondition, so that a namesake made since is never hit."""

    kind: Kind
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Label:
    """Sets (or with None removes) labels of an object we own."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str | None]


@dataclass(frozen=True)
class SetFinalizer:
    """Adds or removes our finalizer on the custom resource itself."""

    present: bool


@dataclass(frozen=True)
class ProbePod:
    """Asks a serving pod the recorded questions; the answer appears in a later observation, keyed by pod uid."""

    pod: str
    uid: str
    address: str  # http://ip:port
    model: str
    probes: tuple[Mapping[str, Any], ...]  # {prompt, answer, margin}; empty: any non-empty completion will do
    timeout_seconds: int
    retries: int


@dataclass(frozen=True)
class Target:
    """A pod whose metrics count. `address` is empty where its runtime has none."""

    pod: str
    revision: str
    created: datetime | None
    address: str  # http://ip:port/metrics
    handlers: tuple[str, ...]  # the runtime's own paths whose requests count


@dataclass(frozen=True)
class RouterTarget:
    """A router whose metrics count: each of `addresses` is one of its processes."""

    addresses: tuple[str, ...]  # http://host:port/metrics
    problem: str  # why they are not known; empty: they are
    backends: Mapping[str, Backend]  # by revision


@dataclass(frozen=True)
class Query:
    """A question for Prometheus about one variant."""

    metric: str
    variant: Variant
    promql: str


@dataclass(frozen=True)
class Collect:
    """Reads the figures of both versions, at most once in `interval_seconds` and at the start of each stage; they appear in a later
    observation."""

    rollout: str
    stage: str
    interval_seconds: int
    namespace: str
    targets: tuple[Target, ...]
    prometheus: str  # its address; empty: the pods are asked themselves
    queries: tuple[Query, ...] = ()
    router: RouterTarget | None = None  # it says how many requests there were and failed; None: the pods do

    @property
    def source(self) -> str:
        """Who counts requests and errors."""
        return "router" if self.router is not None else self.prometheus or "pods"


Effect = Create | Apply | Delete | Label | SetFinalizer | ProbePod | Collect


@dataclass(frozen=True)
class Note:
    """A Kubernetes Event about the custom resource."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """One step toward the declared state."""

    reason: str  # for the log line
    status: Mapping[str, Any] | None = None  # whole status as it should be stored; None: leave as it is
    effects: tuple[Effect, ...] = ()
    notes: tuple[Note, ...] = ()
    requeue_at: datetime | None = None  # None: an event or the resync will wake us
    message: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)  # further key-values of the log line

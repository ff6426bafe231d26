"""The one snapshot that a decision about a LoRADeployment may use.

Built by reconcile/deployment.py from the cache and a few live reads; tests build it by hand. Every `None` says what it
means. Nothing here is read later than it was built: a decision that needs something else waits for the next snapshot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lora_operator.api.deployment import Deployment
from lora_operator.api.errors import Invalid
from lora_operator.api.reasons import Reason
from lora_operator.core.analysis.comparison import Comparison, Sample
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.pod_template import PodSettings
from lora_operator.core.build.profile import Profile
from lora_operator.core.build.revision import Revision
from lora_operator.core.rollout.adapter_view import AdapterView
from lora_operator.core.rollout.capacity import Supply
from lora_operator.core.rollout.pods import Pod
from lora_operator.core.rollout.router import Router, RouteState
from lora_operator.core.rollout.status import RolloutStatus

__all__ = [
    "Answer",
    "Lack",
    "Observed",
    "Refusal",
    "RolloutSettings",
    "RouterMetrics",
    "Standing",
    "Winner",
    "Workload",
]


class Winner(StrEnum):
    """Of an A/B test."""

    OPEN = "nobody"
    CANDIDATE = "the candidate"
    STABLE = "stable"


@dataclass(frozen=True)
class Standing:
    """What the success metrics say so far."""

    winner: Winner
    message: str


@dataclass(frozen=True)
class Answer:
    """What a pod answered to the recorded questions."""

    passed: bool
    reason: Reason
    message: str


@dataclass(frozen=True)
class Refusal:
    """The API server would not take an object of ours."""

    reason: Reason  # Invalid: it never will; Forbidden: a right is missing
    message: str


@dataclass(frozen=True)
class Lack:
    """What the data plane cannot do that the declared rollout needs."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Workload:
    """What lives of one revision. The raw objects are ours (controller uid checked); None: not there."""

    record: Mapping[str, Any] | None = None
    deployment: Mapping[str, Any] | None = None
    service: Mapping[str, Any] | None = None
    budget: Mapping[str, Any] | None = None
    pods: tuple[Pod, ...] = ()

    @property
    def ready(self) -> int:
        """Pods that serve."""
        return sum(pod.ready for pod in self.pods)

    @property
    def staying(self) -> tuple[Pod, ...]:
        """Pods that are not being deleted."""
        return tuple(pod for pod in self.pods if not pod.leaving)

    @property
    def replicas(self) -> int:
        """Replicas as the Deployment's spec says; 0 without one."""
        return 0 if self.deployment is None else int(self.deployment["spec"].get("replicas", 1))


@dataclass(frozen=True)
class RolloutSettings:
    """What the installation decides."""

    profiles: Mapping[str, Profile]
    pods: PodSettings
    health_retries: int
    health_timeout_seconds: int
    switch_delay_seconds: int
    canary_weight: int  # of the first step where a canary names no steps
    interval_seconds: int  # between two looks at the metrics where the spec is silent


@dataclass(frozen=True)
class RouterMetrics:
    """Where the processes of a router publish what they count. `problem`: why that is not known; empty where it is."""

    addresses: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Observed:
    """Everything a decision may use."""

    owner: Owner
    generation: int
    deleting: bool
    has_finalizer: bool
    annotations: Mapping[str, str]
    spec: Deployment | None  # None: it could not be parsed, `invalid` says why
    invalid: Invalid | None
    status: RolloutStatus
    adapter: AdapterView | None  # None: no LoRAAdapter of the name in adapterRef
    access_modes: tuple[str, ...] | None  # of the artifact's claim; None: not known
    settings: RolloutSettings
    records: Mapping[str, Revision]  # stored revisions
    workloads: Mapping[str, Workload]  # by revision
    router: Router | None  # None: the spec's traffic has no router (invalid, or not supported yet)
    route: RouteState | None  # None: the router's object does not exist
    other_routes: tuple[RouteState, ...] = ()  # ours, left behind by another `traffic` member
    supply: Supply | None = None  # None: not needed, or no rights to read it
    lack: Lack | None = None  # asked at a start alone; None: nothing is missing, or it cannot be known
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by pod uid
    comparison: Comparison | None = None  # stored sums of the running comparison; None: there are none
    comparison_object: Mapping[str, Any] | None = None  # the ConfigMap they are in; None: not there, or not read
    router_metrics: RouterMetrics | None = (
        None  # of the router that shares the requests; None: the pods alone say how many
    )
    sample: Sample | None = None  # the newest look at the metrics, added to the sums or not
    foreign: tuple[str, ...] = ()  # objects of names we need that belong to somebody else, e.g. "Service shop/fin"
    test: Standing | None = None  # of the running A/B test; None: nothing was measured
    refusal: Refusal | None = None  # what the API server said to our last writes; None: it took them

    def workload(self, revision: str) -> Workload:
        """What lives of a revision; an empty one when nothing does."""
        return self.workloads.get(revision, Workload())

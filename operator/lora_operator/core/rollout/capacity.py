"""GPU supply and how a new version fits into it: beside the old one, after it, or not at all.

    free ≥ need              surge: the new version starts while the old one serves; no request is lost
    free + previous ≥ need   the version before, kept warm or draining, gives its GPUs up first
    … + stable ≥ need        Replace alone: the old version goes first; the downtime is declared in status.downtime
    otherwise                InsufficientGPU with the numbers, and nothing is started

Without rights on nodes there is no supply to read: then the scheduler is the judge (health.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Fit", "GpuNeed", "Room", "Supply", "fit_of", "gpu_need", "read_supply"]

_NOT_DEVICES = ("kubernetes.io/", "hugepages-", "requests.", "attachable-volumes-")
_FINISHED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class GpuNeed:
    """What one pod asks for: the extended resource and how many of it."""

    resource: str
    per_pod: int


@dataclass(frozen=True)
class Room:
    """One node that the pods may run on."""

    node: str
    total: int
    free: int
    stable: int  # held by the version that serves now
    previous: int  # held by the version before it, which serves no more
    memory_mib: int | None  # of one GPU, by the node's label; None: not labelled


@dataclass(frozen=True)
class Supply:
    """All nodes that the pods may run on."""

    rooms: tuple[Room, ...]
    out_of_reach: int = 0  # GPUs of nodes that would do but cannot mount the artifact's claim

    def on_one_node(self) -> "Supply":
        """What is left when a ReadWriteOnce claim keeps all pods on one node: where a version of ours runs, else the freest."""
        if not self.rooms:
            return self
        home = max(self.rooms, key=lambda room: (room.stable + room.previous, room.free, room.node))
        return Supply(rooms=(home,), out_of_reach=self.total - home.total)

    def pods_now(self, need: GpuNeed) -> int:
        """How many pods could start beside everything that runs."""
        return sum(room.free // need.per_pod for room in self.rooms)

    def pods_after_previous(self, need: GpuNeed) -> int:
        """How many could start if the version before the serving one left."""
        return sum((room.free + room.previous) // need.per_pod for room in self.rooms)

    def pods_after_stable(self, need: GpuNeed) -> int:
        """How many could start if the serving version left too."""
        return sum((room.free + room.previous + room.stable) // need.per_pod for room in self.rooms)

    def pods_at_all(self, need: GpuNeed) -> int:
        """How many the nodes could ever hold."""
        return sum(room.total // need.per_pod for room in self.rooms)

    @property
    def free(self) -> int:
        """Free GPUs."""
        return sum(room.free for room in self.rooms)

    @property
    def total(self) -> int:
        """GPUs that exist."""
        return sum(room.total for room in self.rooms)

    @property
    def memory_mib(self) -> int | None:
        """Memory of the smallest labelled GPU the pods may land on; None when no node says."""
        return min((room.memory_mib for room in self.rooms if room.memory_mib is not None), default=None)


class Fit(StrEnum):
    """How a version of `replicas` pods fits."""

    SURGE = "surge"
    AFTER_PREVIOUS = "after the version before left"
    AFTER_STABLE = "after the old version left"
    BUSY = "others hold the GPUs"
    NEVER = "more than exist"


def gpu_need(resources: Mapping[str, Any]) -> GpuNeed | None:
    """The device a container asks for (`nvidia.com/gpu`, `amd.com/gpu`, MIG slices …); None when it asks for none."""
    asked = dict(resources.get("requests") or {}) | dict(resources.get("limits") or {})
    for resource, amount in sorted(asked.items()):
        if "/" in resource and not resource.startswith(_NOT_DEVICES) and int(str(amount)) > 0:
            return GpuNeed(resource=resource, per_pod=int(str(amount)))
    return None


def fit_of(
    supply: Supply | None, *, need: GpuNeed | None, replicas: int, has_stable: bool, has_previous: bool = False
) -> Fit:
    """How a new version of `replicas` pods fits. Unknown supply reads as room, the scheduler will tell; but a version that
    is only kept warm goes first then, because nobody can say whether it is in the way.
    """
    if need is None:
        return Fit.SURGE
    if supply is None:
        return Fit.AFTER_PREVIOUS if has_previous else Fit.SURGE
    if supply.pods_now(need) >= replicas:
        return Fit.SURGE
    if has_previous and supply.pods_after_previous(need) >= replicas:
        return Fit.AFTER_PREVIOUS
    if has_stable and supply.pods_after_stable(need) >= replicas:
        return Fit.AFTER_STABLE
    return Fit.BUSY if supply.pods_at_all(need) >= replicas else Fit.NEVER


def read_supply(
    *,
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]],
    need: GpuNeed,
    runtime: Mapping[str, Any],
    stable_labels: Mapping[str, str],
    previous_labels: Mapping[str, str] | None = None,
) -> Supply:
    """Supply from raw nodes and pods, for pods with `spec.runtime`'s nodeSelector and tolerations."""
    used: dict[str, int] = {}
    held: dict[str, int] = {}
    kept: dict[str, int] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        amount = _pod_gpus(pod, resource=need.resource)
        if not node or not amount or (pod.get("status") or {}).get("phase") in _FINISHED:
            continue
        used[node] = used.get(node, 0) + amount
        labels = pod["metadata"].get("labels") or {}
        for holds, wanted in ((held, stable_labels), (kept, previous_labels or {})):
            if wanted and wanted.items() <= labels.items():
                holds[node] = holds.get(node, 0) + amount
    rooms = []
    for node in nodes:
        if not _may_land(node, runtime=runtime):
            continue
        name = node["metadata"]["name"]
        total = int(str((node["status"].get("allocatable") or {}).get(need.resource, 0)))
        if total:
            rooms.append(
                Room(
                    node=name,
                    total=total,
                    free=max(0, total - used.get(name, 0)),
                    stable=held.get(name, 0),
                    previous=kept.get(name, 0),
                    memory_mib=_gpu_memory(node),
                )
            )
    return Supply(rooms=tuple(rooms))


def _pod_gpus(pod: Mapping[str, Any], *, resource: str) -> int:
    """Init containers run before, so the larger of both counts."""
    spec = pod.get("spec") or {}
    return max(
        sum(_asked(container, resource=resource) for container in spec.get("containers") or ()),
        max((_asked(container, resource=resource) for container in spec.get("initContainers") or ()), default=0),
    )


def _asked(container: Mapping[str, Any], *, resource: str) -> int:
    resources = container.get("resources") or {}
    asked = dict(resources.get("requests") or {}) | dict(resources.get("limits") or {})
    return int(str(asked.get(resource, 0)))


def _may_land(node: Mapping[str, Any], *, runtime: Mapping[str, Any]) -> bool:
    labels = node["metadata"].get("labels") or {}
    spec = node.get("spec") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or ())
    if not ready or spec.get("unschedulable"):
        return False
    wanted = runtime.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    taints = [taint for taint in spec.get("taints") or () if taint.get("effect") in ("NoSchedule", "NoExecute")]
    return all(any(_tolerates(t, taint) for t in runtime.get("tolerations") or ()) for taint in taints)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return bool(toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", ""))


def _gpu_memory(node: Mapping[str, Any]) -> int | None:
    """`nvidia.com/gpu.memory` in MiB, as GPU feature discovery writes it."""
    text = (node["metadata"].get("labels") or {}).get("nvidia.com/gpu.memory", "")
    return int(text) if text.isdigit() else None

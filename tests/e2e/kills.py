"""kill -9 of the operator right after some of its writes, while rollouts are under way.

The audit log says that a write was taken a few milliseconds after it was; by then the operator may have sent another. `Kill.after` says
which one it was aimed at.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from devcluster.cluster import Cluster
from tests.e2e.api import LORA, connect
from tests.e2e.audit import AuditTail, pod_of, told
from tests.e2e.operator_process import kill, operator_pods, process_of, start_another

__all__ = ["Aim", "Kill", "Killer", "each_write", "in_each_phase"]

Json = dict[str, Any]
POLL = 0.002  # seconds


@dataclass(frozen=True)
class Kill:
    """One of them."""

    name: str  # of the LoRADeployment that was written for
    phase: str  # in which it was
    number: int  # of the write within the phase
    after: str


Aim = Callable[[str, str, int], bool]  # whether to kill after this write of this deployment in this phase


def in_each_phase(aims: Mapping[tuple[str, str], int]) -> Aim:
    """Once for each pair of deployment and phase, after the write of that number; after the next one if the operator was dead then."""
    left = dict(aims)

    def hits(name: str, phase: str, number: int) -> bool:
        return (name, phase) in left and number >= left[name, phase] and bool(left.pop((name, phase)))

    return hits


def each_write(most: int) -> Aim:
    """After every one, `most` times at most."""
    left = iter(range(most))
    return lambda name, phase, number: next(left, None) is not None


class Killer:
    """`with Killer(...) as killer:` counts the writes for some deployments, from the first phase that they enter."""

    def __init__(self, cluster: Cluster, *, namespace: str, names: list[str], aim: Aim) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._aim = aim
        self._http = connect(cluster)
        self._phases = {name: (self._phase(name), 0) for name in names}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.kills: list[Kill] = []
        self.writes = 0

    def __enter__(self) -> "Killer":
        self._log = AuditTail(self._cluster.audit_log)
        self._pods = operator_pods(self._cluster)
        self._pid = process_of(self._pods)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._http.close()

    def _watch(self) -> None:
        with self._log:
            while not self._over.is_set():
                self._look()
                time.sleep(POLL)

    def _look(self) -> None:
        for write in self._log.writes():
            found = self._count(write)
            alive = pod_of(write) in self._pods  # what was killed already may have left more than one write behind
            if found is not None and alive and self._aim(found.name, found.phase, found.number):
                self._kill(found)

    def _count(self, write: Json) -> Kill | None:
        reference = write["objectRef"]
        said = reference.get("name", "")
        name = next((name for name in self._phases if said == name or said.startswith(f"{name}-")), None)
        if name is None or reference.get("namespace") != self._namespace:
            return None
        phase, number = self._phases[name]
        now = self._phase(name) if reference.get("subresource") == "status" else phase
        entered = now != phase or number > 0
        number = 1 if now != phase else number + entered
        self._phases[name] = (now, number)
        self.writes += entered
        return Kill(name=name, phase=now, number=number, after=told(write)) if entered else None

    def _kill(self, found: Kill) -> None:
        kill(self._pid)
        self.kills.append(found)
        self._pods = start_another(self._cluster, instead_of=self._pods)
        self._pid = process_of(self._pods)

    def _phase(self, name: str) -> str:
        found = self._http.get(f"{LORA}/namespaces/{self._namespace}/loradeployments/{name}").json()
        return str(found.get("status", {}).get("phase", ""))

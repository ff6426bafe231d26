"""kill -9 of the operator between its writes: the API server has taken one, and the operator is dead before it could know.

The worst moment of a write, and none is missed: its answer waits in the proxy (tests/e2e/api_proxy.py).
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from devcluster.cluster import Cluster
from tests.e2e.api_proxy import ApiProxy, Write
from tests.e2e.operator_process import kill, operator_pods, process_of, start_another

__all__ = ["Aim", "Kill", "Killer", "each_write", "in_each_phase"]


@dataclass(frozen=True)
class Kill:
    """One of them."""

    phase: str  # in which it was
    number: int  # of the write within the phase
    after: str


Aim = Callable[[str, int], bool]  # whether to kill after this write in this phase


def in_each_phase(aims: Mapping[str, int]) -> Aim:
    """Once in each of these phases, after the write of that number."""
    left = dict(aims)
    return lambda phase, number: left.get(phase) == number and bool(left.pop(phase))


def each_write(most: int) -> Aim:
    """After every one, `most` times at most."""
    left = iter(range(most))
    return lambda phase, number: next(left, None) is not None


class Killer:
    """`with Killer(...) as killer:` counts the writes for one deployment, from the first phase on that it enters."""

    def __init__(self, cluster: Cluster, proxy: ApiProxy, *, namespace: str, name: str, phase: str, aim: Aim) -> None:
        self._cluster = cluster
        self._proxy = proxy
        self._namespace = namespace
        self._name = name
        self._phase = phase  # in which it is now
        self._number = 0
        self._aim = aim
        self._lock = threading.Lock()  # held while a kill is under way
        self.kills: list[Kill] = []
        self.writes = 0

    def __enter__(self) -> "Killer":
        self._proxy.on_write = self._see
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._proxy.on_write = lambda _: None

    def _see(self, write: Write) -> None:
        with self._lock:
            if self._concerns(write) and self._entered(write):
                self.writes += 1
                if self._aim(self._phase, self._number):
                    self._kill(write)

    def _concerns(self, write: Write) -> bool:
        ours = write.name == self._name or write.name.startswith(f"{self._name}-")
        return ours and write.namespace == self._namespace

    def _entered(self, write: Write) -> bool:
        """Counts it, unless the phase is still the one from before."""
        before = self._phase
        if write.subresource == "status":
            self._phase = write.answer["status"]["phase"]
        if self._phase != before:
            self._number = 1
        elif self._number > 0:
            self._number += 1
        return self._number > 0

    def _kill(self, write: Write) -> None:
        pods = operator_pods(self._cluster)
        kill(process_of(pods))
        self.kills.append(Kill(phase=self._phase, number=self._number, after=write.told))
        start_another(self._cluster, instead_of=pods)

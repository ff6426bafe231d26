"""One LoRADeployment under an open-loop load, with what a test asks of it and does to it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from devcluster.cluster import Cluster
from tests.e2e.conftest import read, soon, wait_for
from tests.e2e.simulated import EVERY, ask, at, deployment, host, serves
from tests.e2e.traffic import Traffic
from tests.e2e.truth import Truth, weights_in

__all__ = ["Served", "serving"]

Json = dict[str, Any]
HALF: list[Json] = [{"setWeight": 50}, {"pause": {}}]


class Served:
    """Its versions are v1, v2, …; each answers its name."""

    def __init__(
        self, cluster: Cluster, *, namespace: str, name: str, replicas: int = 2, strategy: Json | None = None
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.name = name
        self.replicas = replicas
        self.strategy = {"type": "Canary", "canary": {"steps": HALF}} if strategy is None else strategy
        self.load = Traffic(url=cluster.gateway_url, host=host(name), model="sim", every=EVERY)
        self.answer = "v1"  # of the version that serves
        self._count = 1

    # -- what is so ---------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Json:
        found = read(self.cluster, "loradeployment", self.name, namespace=self.namespace)
        assert found is not None
        return dict(found["status"])

    @property
    def stable(self) -> str:
        """Its revision."""
        return str(self.status["stable"]["revision"])

    @property
    def route(self) -> Json:
        found = read(self.cluster, "httproute", self.name, namespace=self.namespace)
        assert found is not None, "the route is gone"
        return found

    @property
    def weights(self) -> dict[str, int]:
        """By revision, as the route says."""
        return weights_in(self.route)

    def pods(self, revision: str) -> list[str]:
        labels = f"loraops.dev/deployment={self.name},loraops.dev/revision={revision}"
        return self.cluster.kubectl("get", "pods", "-n", self.namespace, "-l", labels, "-o", "name").split()

    def watched(self) -> Truth:
        return Truth(self.cluster, namespace=self.namespace, name=self.name)

    # -- what is done -------------------------------------------------------------------------------------------------

    def manifest(self, answer: str, *, steps: list[Json] | None = None, **spec: Any) -> Json:
        strategy = self.strategy if steps is None else {"type": "Canary", "canary": {"steps": steps}}
        manifest = deployment(
            self.namespace, self.name, answer=answer, strategy=strategy, replicas=self.replicas, **spec
        )
        manifest["spec"]["runtime"]["drainSeconds"] = 3
        return manifest

    def declare(self, answer: str, **spec: Any) -> None:
        self.cluster.apply(self.manifest(answer, **spec))

    def next(self, **spec: Any) -> str:
        """Declares another version; what it answers."""
        self._count += 1
        self.declare(f"v{self._count}", **spec)
        return f"v{self._count}"

    def ask(self, verb: str) -> None:
        ask(self.cluster, self.namespace, self.name, verb)

    def ask_all(self, *verbs: str) -> None:
        """Several requests in one write."""
        value = f"{self.status['candidate']['revision']}/{uuid4().hex[:6]}"
        annotations = [f"loraops.dev/{verb}={value}" for verb in verbs]
        self._kubectl("annotate", "loradeployment", self.name, *annotations, "--overwrite")

    def scale(self, replicas: int) -> None:
        """Through the scale subresource, as an autoscaler does."""
        self._kubectl("scale", "loradeployment", self.name, f"--replicas={replicas}")

    def patch(self, kind: str, body: Json) -> None:
        self._kubectl("patch", kind, self.name, "--type=merge", "-p", json.dumps(body))

    def delete(self, *kinds_and_names: str) -> None:
        self._kubectl("delete", *kinds_and_names)

    # -- what is waited for -------------------------------------------------------------------------------------------

    def until(self, holds: Callable[[Json], bool], *, seconds: float = 60) -> Json:
        """The status once this is true of the resource."""
        found = wait_for(self.cluster, "loradeployment", self.name, holds, namespace=self.namespace, seconds=seconds)
        return dict(found["status"])

    def paused(self, reason: str = "AwaitingPromote") -> Json:
        holds = at("Paused")
        return self.until(lambda found: holds(found) and found["status"]["pause"]["reason"] == reason, seconds=90)

    def promoted(self, answer: str, *, before: str) -> Json:
        """It serves alone."""
        status = self.until(serves(before), seconds=90)
        self.until(lambda _: self.load.only(answer), seconds=20)
        self.answer = answer
        return status

    def aborted(self, *, reason: str) -> Json:
        """The candidate is given up, and the version before serves alone."""
        status = self.until(at("Aborted"), seconds=90)
        assert status["abort"]["reason"] == reason
        assert (status["stable"]["weight"], self.weights) == (100, {status["stable"]["revision"]: 100})
        self.until(lambda _: self.load.only(self.answer), seconds=20)
        return status

    def soon(self, holds: Callable[[], bool], *, what: str, seconds: float = 20) -> None:
        soon(holds, what=what, seconds=seconds)

    def _kubectl(self, verb: str, *arguments: str) -> str:
        return self.cluster.kubectl(verb, "-n", self.namespace, *arguments)


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    """Its v1, under load until the block ends. No request may be lost meanwhile."""
    served.declare("v1")
    served.until(serves(), seconds=90)
    with served.load:
        yield served
    if served.load.seen.lost:
        pytest.fail(f"{served.name} lost {served.load.seen.lost}")
    assert served.load.seen.streams > 0

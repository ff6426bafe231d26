"""The wall clock of the operator's pod, and of nothing else on this machine, jumps when a test says so.

libfaketime is loaded into the operator's process before anything else, from a ConfigMap; at every look at the clock it reads by how
much to be wrong from a file in the pod, which the test writes. Steady clocks stay true, as they do when somebody sets a machine's clock.
"""

import base64
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devcluster.cluster import Cluster
from devcluster.programs import install_packages
from tests.e2e.conftest import CI_FACTOR, read
from tests.e2e.operator_process import NAME, SYSTEM, patch_pod, process_of

__all__ = ["WallClock", "faked", "lease"]

Json = dict[str, Any]
LIBRARY = Path(f"/usr/lib/{platform.machine()}-linux-gnu/faketime/libfaketimeMT.so.1")
CONFIG, MOUNT = "faketime", "/faketime"
OFFSET = "/tmp/faketime"  # in the pod
VARIABLES = {
    "LD_PRELOAD": f"{MOUNT}/{LIBRARY.name}",
    "FAKETIME_TIMESTAMP_FILE": OFFSET,  # as long as there is none, the clock is right
    "FAKETIME_NO_CACHE": "1",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "NO_FAKE_STAT": "1",  # what is on a disk keeps its times when a clock jumps
}


@contextmanager
def faked(cluster: Cluster) -> Iterator[None]:
    """The operator's pod is one whose wall clock can be set until the block ends."""
    install_packages(say=lambda _: None, packages={str(LIBRARY): "libfaketime"})
    data = {LIBRARY.name: base64.b64encode(LIBRARY.read_bytes()).decode()}
    metadata = {"name": CONFIG, "namespace": SYSTEM}
    env = [{"name": name, "value": value} for name, value in VARIABLES.items()]
    mounts = [{"name": CONFIG, "mountPath": MOUNT}]
    volumes = [{"name": CONFIG, "configMap": {"name": CONFIG}}]
    try:
        cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": data})
        patch_pod(cluster, container={"env": env, "volumeMounts": mounts}, pod={"volumes": volumes})
        yield
    finally:
        env = [{"name": name, "$patch": "delete"} for name in VARIABLES]
        mounts = [{"mountPath": MOUNT, "$patch": "delete"}]
        volumes = [{"name": CONFIG, "$patch": "delete"}]
        patch_pod(cluster, container={"env": env, "volumeMounts": mounts}, pod={"volumes": volumes})
        cluster.kubectl("delete", "configmap", CONFIG, "-n", SYSTEM, "--ignore-not-found")


class WallClock:
    """Of a pod that was made by `faked`."""

    def __init__(self, cluster: Cluster, *, pod: str) -> None:
        self._cluster = cluster
        self._file = Path(f"/proc/{process_of([pod])}/root{OFFSET}")

    def set(self, *, hours: int) -> None:
        """Wrong by so much from now on; waits until the operator has written such a time, in its Lease."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{hours * 3600:+d}\n")
        fresh.replace(self._file)  # never half of it
        deadline = time.monotonic() + 6 * CI_FACTOR
        while round(self._wrong_by() / 3600) != hours:
            assert time.monotonic() < deadline, (
                f"the operator's clock is {self._wrong_by():+.0f} s off, not {hours:+d} h"
            )
            time.sleep(0.1)

    def _wrong_by(self) -> float:
        renewed = datetime.fromisoformat(lease(self._cluster)["renewTime"])
        return (renewed - datetime.now(UTC)).total_seconds()


def lease(cluster: Cluster) -> Json:
    """What the operators' Lease says."""
    found = read(cluster, "lease", NAME, namespace=SYSTEM)
    assert found is not None
    return dict(found["spec"])

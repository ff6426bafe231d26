"""A Node whose kubelet is the test: what is scheduled there is Running and Ready at once, and no process runs.

So that there can be a thousand serving pods where one real node has room for a hundred. Played are the containers alone: scheduler,
controllers, EndpointSlices and routes are the real ones, and each pod says the address of one pod that really runs, so that whoever asks
it (the operator, before any weight) gets the answer of a real server.

    pod bound to the Node ─► Running, Ready ─► … ─► being deleted ─► gone
"""

import json
import threading
from datetime import UTC, datetime
from typing import Any

from devcluster.cluster import Cluster
from tests.e2e.api import connect, follow

__all__ = ["PlayedNode"]

Json = dict[str, Any]
BEAT_SECONDS = 10  # as a kubelet does; without it for 40 s the Node is not Ready
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
MERGE = {"Content-Type": "application/merge-patch+json"}
STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
AT_ONCE = json.dumps({"gracePeriodSeconds": 0})


class PlayedNode:
    """`with PlayedNode(...) as node:` it is Ready until the block ends. Only pods with `placement` in their spec get there."""

    def __init__(self, cluster: Cluster, *, name: str, room: int) -> None:
        self._cluster = cluster
        self._name = name
        self._room = room
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._beat), threading.Thread(target=self._play)]
        self.address = ""  # what its pods say theirs is

    @property
    def pods(self) -> str:
        """Where those are listed that it has."""
        return f"/api/v1/pods?fieldSelector=spec.nodeName={self._name}"

    @property
    def placement(self) -> Json:
        """For the spec of a pod."""
        return {
            "nodeSelector": {"kubernetes.io/hostname": self._name},
            "tolerations": [{"key": self._name, "operator": "Exists"}],
        }

    def __enter__(self) -> "PlayedNode":
        self._cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": self._name, "labels": {"kubernetes.io/hostname": self._name}},
                "spec": {"taints": [{"key": self._name, "effect": "NoSchedule"}]},
            }
        )
        room = {"cpu": "1000", "memory": "4Ti", "pods": str(self._room)}
        ready = {"type": "Ready", "status": "True", "reason": "Played", "lastHeartbeatTime": _now()}
        with connect(self._cluster) as http:
            http.delete(f"{LEASES}/{self._name}")
            http.post(LEASES, json={"metadata": {"name": self._name}, "spec": self._lease()}).raise_for_status()
            status = {"capacity": room, "allocatable": room, "conditions": [ready]}
            http.patch(
                f"/api/v1/nodes/{self._name}/status", content=json.dumps({"status": status}), headers=STRATEGIC
            ).raise_for_status()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        with connect(self._cluster) as http:
            http.delete(f"/api/v1/nodes/{self._name}")
            http.delete(f"{LEASES}/{self._name}")

    def _beat(self) -> None:
        with connect(self._cluster) as http:
            while not self._over.wait(BEAT_SECONDS):
                http.patch(f"{LEASES}/{self._name}", content=json.dumps({"spec": self._lease()}), headers=MERGE)

    def _lease(self) -> Json:
        return {"holderIdentity": self._name, "leaseDurationSeconds": 40, "renewTime": _now()}

    def _play(self) -> None:
        with connect(self._cluster) as http:

            def see(kind: str, pod: Json) -> None:
                path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
                if kind == "DELETED":
                    return
                if "deletionTimestamp" in pod["metadata"]:
                    http.request("DELETE", path, content=AT_ONCE, headers={"Content-Type": "application/json"})
                elif pod["status"].get("phase") == "Pending":
                    body = json.dumps({"status": running(pod, address=self.address)})
                    http.patch(f"{path}/status", content=body, headers=STRATEGIC)

            where = {"fieldSelector": f"spec.nodeName={self._name}"}
            follow(self._cluster, "/api/v1/pods", where, see, over=self._over)


def running(pod: Json, *, address: str) -> Json:
    """The status a kubelet writes once all containers run and are ready."""
    now, spec = _now(), pod["spec"]
    conditions = ("Initialized", "ContainersReady", "Ready")
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
    return {
        "phase": "Running",
        "startTime": now,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in conditions],
        "initContainerStatuses": [_container(one, state=ended) for one in spec.get("initContainers") or ()],
        "containerStatuses": [
            _container(one, state={"running": {"startedAt": now}}) | {"started": True} for one in spec["containers"]
        ],
    }


def _container(container: Json, *, state: Json) -> Json:
    image = container["image"]
    return {
        "name": container["name"],
        "image": image,
        "imageID": image,
        "ready": True,
        "restartCount": 0,
        "state": state,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

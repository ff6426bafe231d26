"""Watches one LoRADeployment beside what is true: its route and its pods, sampled a few times a second.

Status is observed, so it follows the truth; T25 says how far behind it may be: a figure in status was true within the last 2 s.
"""

import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import yaml

from devcluster.cluster import Cluster

__all__ = ["Truth"]

Json = dict[str, Any]
WITHIN = 2.0  # seconds
PAUSE = 0.1


@dataclass(frozen=True)
class Sample:
    """What was so between the begin and the end of three reads."""

    begin: float
    end: float
    weights: dict[str, int]
    ready: dict[str, int]
    said: dict[str, tuple[int, int]]  # by revision: weight and ready pods as status says


@dataclass
class Truth:
    """`with Truth(...) as truth:` … then `truth.untrue()`."""

    cluster: Cluster
    namespace: str
    name: str
    samples: list[Sample] = field(default_factory=list)
    compared: int = 0

    def __enter__(self) -> "Truth":
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def weight_without_a_pod(self) -> list[str]:
        """T1: revisions that had weight in one sample, and no ready pod in it nor in its neighbours."""
        found = []
        for before, now, after in zip(self.samples, self.samples[1:], self.samples[2:], strict=False):
            for revision, weight in now.weights.items():
                if weight and not any(sample.ready.get(revision) for sample in (before, now, after)):
                    found.append(f"{revision} has weight {weight} and no ready pod")
        return found

    def untrue(self) -> list[str]:
        """What status said and was not true at any time of the 2 s before."""
        found = []
        for number, sample in enumerate(self.samples):
            past = [one for one in self.samples[: number + 1] if one.end >= sample.begin - WITHIN]
            if self.samples[0].begin > sample.begin - WITHIN:
                continue  # what was before is not known
            for revision, (weight, ready) in sample.said.items():
                self.compared += 1
                if weight not in {one.weights.get(revision, 0) for one in past}:
                    found.append(f"weight {weight} of {revision}: {[one.weights for one in past]}")
                if ready not in {one.ready.get(revision, 0) for one in past}:
                    found.append(f"readyReplicas {ready} of {revision}: {[one.ready for one in past]}")
        return found

    def _watch(self) -> None:
        api = "/apis/loraops.dev/v1alpha1"
        paths = (
            f"{api}/namespaces/{self.namespace}/loradeployments/{self.name}",
            f"/apis/gateway.networking.k8s.io/v1/namespaces/{self.namespace}/httproutes/{self.name}",
            f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=loraops.dev/deployment={self.name}",
        )
        with client(self.cluster) as http:
            while not self._over.is_set():
                begin = time.monotonic()
                resource, route, pods = (http.get(path).json() for path in paths)
                self.samples.append(
                    Sample(
                        begin=begin,
                        end=time.monotonic(),
                        weights=_weights(route),
                        ready=_ready(pods.get("items", [])),
                        said=_said(resource.get("status", {})),
                    )
                )
                time.sleep(PAUSE)


def client(cluster: Cluster) -> httpx.Client:
    """The API server, as the administrator of the cluster's kubeconfig."""
    raw = yaml.safe_load(cluster.kubeconfig.read_text())
    where, who = raw["clusters"][0]["cluster"], raw["users"][0]["user"]
    context = ssl.create_default_context(cafile=where["certificate-authority"])
    context.load_cert_chain(who["client-certificate"], who["client-key"])
    return httpx.Client(base_url=where["server"], verify=context, trust_env=False, timeout=10)


def _weights(route: Json) -> dict[str, int]:
    rules = [rule for rule in route.get("spec", {}).get("rules", []) if "headers" not in rule["matches"][0]]
    refs = rules[0]["backendRefs"] if rules else []
    return {ref["name"].rsplit("-", 1)[1]: ref["weight"] for ref in refs}


def _ready(pods: list[Json]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pod in pods:
        conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
        if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
            revision = pod["metadata"]["labels"]["loraops.dev/revision"]
            found[revision] = found.get(revision, 0) + 1
    return found


def _said(status: Json) -> dict[str, tuple[int, int]]:
    parts = (status[part] for part in ("stable", "candidate", "previous") if part in status)
    return {part["revision"]: (part["weight"], part["readyReplicas"]) for part in parts}

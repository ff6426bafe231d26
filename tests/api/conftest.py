"""The API server of the tests' devcluster, with the CRDs of this checkout, and a namespace of its own for each test."""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from devcluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
GROUP = "/apis/loraops.dev/v1alpha1"
PLURALS = {"LoRAAdapter": "loraadapters", "LoRADeployment": "loradeployments"}


class Api:
    """The requests that `kubectl apply` would make, with the server's answer as it is."""

    def __init__(self, client: httpx.Client, *, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    def create(self, manifest: Mapping[str, Any], *, keep: bool = False) -> httpx.Response:
        """POST; without `keep` it is validated in full and thrown away."""
        query = {"fieldValidation": "Strict"} | ({} if keep else {"dryRun": "All"})
        return self._client.post(self._path(manifest), json=dict(manifest), params=query)

    def update(self, manifest: Mapping[str, Any]) -> httpx.Response:
        """PUT, validated in full and thrown away; an operator beside us may write the status, so the version is read anew."""
        path = f"{self._path(manifest)}/{manifest['metadata']['name']}"
        for _ in range(10):
            version = self._client.get(path).json()["metadata"]["resourceVersion"]
            latest = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": version}}
            answer = self._client.put(path, json=latest, params={"fieldValidation": "Strict", "dryRun": "All"})
            if answer.status_code != httpx.codes.CONFLICT:
                break
        return answer

    def write_status(
        self,
        manifest: Mapping[str, Any],
        status: Mapping[str, Any],
        *,
        keep: bool = False,
        accept: str = "application/json",
    ) -> dict[str, Any]:
        """Replaces the whole status; the answer is the object as it would be stored. An operator that runs in this cluster writes
        statuses too, so nothing of an earlier one is kept, and what is asserted comes from the answer and not from a later read."""
        path = f"{self._path(manifest)}/{manifest['metadata']['name']}/status"
        headers = {"Content-Type": "application/json-patch+json", "Accept": accept}
        query = {} if keep else {"dryRun": "All"}
        answer = self._client.patch(
            path, json=[{"op": "add", "path": "/status", "value": dict(status)}], headers=headers, params=query
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def table(self, manifest: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """What `kubectl get -o wide` would show of a stored object with that status."""
        return self.write_status(manifest, status, accept="application/json;as=Table;v=v1;g=meta.k8s.io")

    def get(self, path: str) -> dict[str, Any]:
        """Any other GET."""
        return dict(self._client.get(path).raise_for_status().json())

    def _path(self, manifest: Mapping[str, Any]) -> str:
        return f"{GROUP}/namespaces/{self.namespace}/{PLURALS[manifest['kind']]}"


@pytest.fixture(scope="session")
def cluster(cluster: Cluster) -> Cluster:
    """The devcluster with the CRDs of this checkout."""
    # As the chart's manager: on a kept cluster a later `helm upgrade` would meet another one's fields and refuse.
    cluster.kubectl("apply", "--server-side", "--field-manager=helm", "--force-conflicts", "-f", str(CRDS))
    cluster.kubectl(
        "wait", "--for=condition=Established", "crd/loraadapters.loraops.dev", "crd/loradeployments.loraops.dev"
    )
    return cluster


@pytest.fixture(scope="session")
def client(cluster: Cluster) -> Iterator[httpx.Client]:
    """Speaks to the API server as the kubeconfig's user."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cafile=server["certificate-authority"])
    context.load_cert_chain(user["client-certificate"], user["client-key"])
    with httpx.Client(base_url=server["server"], verify=context, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def api(cluster: Cluster, client: httpx.Client) -> Iterator[Api]:
    """A fresh namespace's API."""
    name = f"api-{uuid4().hex[:8]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Api(client, namespace=name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")

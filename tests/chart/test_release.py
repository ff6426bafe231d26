"""A release on the devcluster: the operator comes up with the chart's rights, is upgraded, goes; nothing of the users' goes with it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from devcluster.cluster import Cluster, NotReady
from tests.chart.conftest import CHART, Helm

pytestmark = pytest.mark.e2e

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
CLAIM = {"claimName": "models", "path": "x"}


class Release:
    """Installed for its own namespace alone, so that it meets no other operator of the cluster."""

    def __init__(self, *, cluster: Cluster, helm: Helm, name: str, image: str) -> None:
        self.name = name
        self.cluster = cluster
        self._helm = helm
        self._place = ("--kubeconfig", str(cluster.kubeconfig), "--namespace", name)
        repository, _, tag = image.rpartition(":")
        self._values = (
            "--set", f"image.operator.repository={repository}", "--set", f"image.operator.tag={tag}",
            "--set", "scope=namespaced", "--set", f"watchNamespaces={{{name}}}", "--set", "gatewayNamespaces={infra}",
        )  # fmt: skip

    def upgrade(self, *values: str) -> None:
        """Install or upgrade; ends when the operator is ready. The CRDs may belong to another release of this cluster."""
        command = ("upgrade", "--install", "--take-ownership", "--wait", "--timeout", "180s", self.name, str(CHART))
        self._helm(*command, *self._place, *self._values, *values)

    def uninstall(self) -> None:
        """Ends when everything of the release is gone."""
        self._helm("uninstall", self.name, "--wait", "--ignore-not-found", *self._place)

    def get(self, *words: str) -> dict[str, Any]:
        """kubectl get in the release's namespace."""
        return dict(json.loads(self.cluster.kubectl("get", *words, "-n", self.name, "-o", "json")))


@pytest.fixture(scope="module")
def release(cluster: Cluster, helm: Helm, operator_image: str) -> Iterator[Release]:
    """Installed; whatever is left of it goes at the end."""
    name = f"chart-{uuid4().hex[:6]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    release = Release(cluster=cluster, helm=helm, name=name, image=operator_image)
    release.upgrade()
    yield release
    release.uninstall()
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def adapter(release: Release) -> str:
    """A suspended adapter: the operator looks at it and starts nothing."""
    spec = {
        "base": {"source": {"pvc": CLAIM}},
        "adapters": [{"name": "main", "source": {"pvc": CLAIM}}],
        "artifact": {"store": {"pvc": CLAIM}},
        "suspend": True,
    }
    release.cluster.apply(
        {
            "apiVersion": "loraops.dev/v1alpha1",
            "kind": "LoRAAdapter",
            "metadata": {"name": "kept", "namespace": release.name},
            "spec": spec,
        }
    )
    return "kept"


def test_an_installed_operator_looks_at_its_namespace_with_the_rights_it_has(release: Release, adapter: str) -> None:
    wait = ("wait", "--for=jsonpath={.status.phase}=Suspended", "--timeout=60s", f"loraadapter/{adapter}")
    release.cluster.kubectl(*wait, "-n", release.name)
    account = f"system:serviceaccount:{release.name}:"
    refused = [
        f"{line['verb']} {line['requestURI']}"
        for line in map(json.loads, Path(release.cluster.audit_log).read_text().splitlines())
        if line["user"].get("username", "").startswith(account) and line["responseStatus"]["code"] == 403
    ]
    assert refused == []


def test_an_upgrade_adds_a_standby_and_one_replica_holds_the_lease(release: Release, adapter: str) -> None:
    release.upgrade("--set", "replicas=2")
    pods = release.get("pods", "-l", f"app.kubernetes.io/instance={release.name}")["items"]
    names = {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
    assert len(names) == 2
    holder = release.get("lease", "lora-operator")["spec"]["holderIdentity"]
    assert any(holder.startswith(name) for name in (pod["metadata"]["name"] for pod in pods))


def test_an_upgrade_with_settings_the_operator_does_not_know_is_refused_before_it_runs(
    release: Release, helm: Helm
) -> None:
    said = helm.fails("template", "x", str(CHART), "--set-json", 'settings={"quality_gate": {}}')
    assert "additional properties 'quality_gate' not allowed" in said
    assert release.get("deployment", release.name)["status"]["readyReplicas"] >= 1


def test_only_who_has_the_verb_force_may_force_a_deployment(release: Release) -> None:
    release.upgrade("--set", "admissionPolicy.enabled=true", "--set", "admissionPolicy.requirePinnedImages=true")
    try:
        forced = _deployment(release.name, forceDeploy=True)
        user = ("--as=engineer", "--as-group=system:authenticated")
        _allow(release, verbs=["create", "get", "patch"])
        release.cluster.kubectl(
            *user, "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(_deployment(release.name))
        )
        _eventually_refused(release, user, forced, says="because you lack the verb force on loradeployments")
        unpinned = _deployment(release.name, runtime={"profile": "vllm", "image": "docker.io/vllm/vllm-openai:latest"})
        _eventually_refused(release, user, unpinned, says="found an image without a digest")
        _allow(release, verbs=["create", "get", "patch", "force"])
        release.cluster.kubectl(*user, "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(forced))
    finally:
        release.upgrade()


def test_an_uninstalled_release_leaves_crds_and_resources(release: Release, adapter: str) -> None:
    release.uninstall()
    assert release.get("deployments")["items"] == []
    assert release.get("roles", "-l", f"app.kubernetes.io/instance={release.name}")["items"] == []
    for name in ("loraadapters", "loradeployments"):
        crd = json.loads(release.cluster.kubectl("get", "crd", f"{name}.loraops.dev", "-o", "json"))
        assert "deletionTimestamp" not in crd["metadata"]
    assert release.get("loraadapter", adapter)["spec"]["suspend"] is True
    release.upgrade()  # and a new one takes up where the old one stopped
    assert release.get("loraadapter", adapter)["status"]["phase"] == "Suspended"


def _deployment(namespace: str, **spec: Any) -> dict[str, Any]:
    usual = {"adapterRef": {"name": "kept"}, "runtime": {"profile": "transformers"}, "traffic": {"service": {}}}
    return {
        "apiVersion": "loraops.dev/v1alpha1",
        "kind": "LoRADeployment",
        "metadata": {"name": "forced", "namespace": namespace},
        "spec": usual | spec,
    }


def _allow(release: Release, *, verbs: list[str]) -> None:
    meta = {"name": "engineer", "namespace": release.name}
    rules = [{"apiGroups": ["loraops.dev"], "resources": ["loradeployments"], "verbs": verbs}]
    group = "rbac.authorization.k8s.io"
    release.cluster.apply(
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "engineer"},
            "subjects": [{"kind": "User", "name": "engineer", "apiGroup": group}],
        },
    )


def _eventually_refused(release: Release, user: tuple[str, ...], manifest: dict[str, Any], *, says: str) -> None:
    """A new policy takes a moment until the API server asks it."""
    said = ""
    for _ in range(100):
        try:
            release.cluster.kubectl(*user, "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(manifest))
        except NotReady as error:
            said = str(error)
            break
    assert says in said

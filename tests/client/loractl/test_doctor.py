"""Is the cluster fit: findings as a table, and the command against an API server with and without rights."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lora_client.names import CLAIM
from loractl.commands.doctor import (
    CONFIG_MAP,
    CRD,
    DEPLOYMENT,
    GATEWAY,
    GATEWAY_CLASS,
    INGRESS_CLASS,
    LEASE,
    NODE,
    STORAGE_CLASS,
)
from loractl.facts import Facts
from loractl.findings import judge
from loractl.rights import RIGHTS
from tests.client.loractl.conftest import Terminal
from tests.client.loractl.whole_cluster import WholeCluster

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
OPERATOR = {"app.kubernetes.io/name": "lora-operator", "app.kubernetes.io/component": "controller"}


def named(name: str, *, namespace: str = "", **content: Any) -> Json:
    return {"metadata": {"name": name, "namespace": namespace, **content.pop("meta", {})}, **content}


def condition(kind: str, status: str = "True") -> Json:
    return {"conditions": [{"type": kind, "status": status}]}


def crd(name: str, version: str = "v1alpha1") -> Json:
    return named(name, spec={"versions": [{"name": version, "served": True}]}, status=condition("Established"))


def gateway(come_from: str, *, programmed: str = "True") -> Json:
    listeners = [{"name": "web", "allowedRoutes": {"namespaces": {"from": come_from}}}]
    return named("public", namespace="infra", spec={"listeners": listeners}, status=condition("Programmed", programmed))


def claim(*modes: str, phase: str = "Bound") -> Json:
    return named("models", spec={"accessModes": list(modes)}, status={"phase": phase, "accessModes": list(modes)})


def operator(ready: int) -> Json:
    return named("lora-operator", namespace="lora-system", spec={"replicas": 1}, status={"readyReplicas": ready})


def lease(renewed: str) -> Json:
    return named("lora-operator", namespace="lora-system", spec={"renewTime": renewed})


GPU_NODE = named(
    "n",
    status={"allocatable": {"nvidia.com/gpu": "4", "cpu": "8"}},
    meta={"labels": {"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4070"}},
)
GPU_POD = named(
    "p",
    spec={"nodeName": "n", "containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
    status={"phase": "Running"},
)
TWO_CRDS = [crd("loraadapters.loraops.dev"), crd("loradeployments.loraops.dev")]
PLAIN: Json = {"version": {"major": "1", "minor": "37", "gitVersion": "v1.37.1"}}

FINDINGS = [
    pytest.param({}, "Kubernetes", "ok", "v1.37.1", id="a new cluster"),
    pytest.param(
        {"version": {"major": "1", "minor": "29+", "gitVersion": "v1.29.3-gke"}},
        "Kubernetes",
        "missing",
        "1.30",
        id="a cluster that is too old",
    ),
    pytest.param({"crds": TWO_CRDS}, "CRDs", "ok", "loradeployments.loraops.dev v1alpha1", id="both CRDs"),
    pytest.param(
        {"crds": TWO_CRDS[:1]},
        "CRDs",
        "missing",
        "loradeployments.loraops.dev is not installed",
        id="one CRD is missing",
    ),
    pytest.param(
        {"crds": [crd("loraadapters.loraops.dev", "v1")]},
        "CRDs",
        "missing",
        "serves v1, expected v1alpha1",
        id="a CRD of another version",
    ),
    pytest.param(
        {"crds": None, "resources_served": True}, "CRDs", "ok", "are served", id="CRDs that may not be listed but work"
    ),
    pytest.param(
        {"crds": None, "resources_served": False},
        "CRDs",
        "missing",
        "not served",
        id="CRDs that may not be listed and do not work",
    ),
    pytest.param({"operators": []}, "operator", "missing", "no Deployment", id="no operator"),
    pytest.param(
        {"operators": [operator(0)]}, "operator", "missing", "no pod is ready", id="an operator without a pod"
    ),
    pytest.param(
        {"operators": [operator(1)], "leases": [lease("2026-01-01T11:59:50.000000Z")]},
        "operator",
        "ok",
        "1 of 1",
        id="an operator that works",
    ),
    pytest.param(
        {"operators": [operator(1)], "leases": [lease("2026-01-01T11:50:00.000000Z")]},
        "operator",
        "missing",
        "10m ago",
        id="an operator that lost its voice",
    ),
    pytest.param(
        {"allowed": dict.fromkeys(RIGHTS, True)}, "your rights", "ok", "everything that loractl does", id="all rights"
    ),
    pytest.param(
        {"allowed": {RIGHTS[0]: False}},
        "your rights",
        "warning",
        "you may not get loraadapters.loraops.dev",
        id="a missing right is named",
    ),
    pytest.param({}, "router", "warning", "no GatewayClass", id="no router"),
    pytest.param(
        {"ingress_classes": [named("nginx")]}, "router", "ok", "IngressClass nginx", id="an Ingress controller alone"
    ),
    pytest.param(
        {"gateway_classes": [named("traefik", status=condition("Accepted"))], "gateways": [gateway("All")]},
        "router",
        "ok",
        "listeners open to namespace finance: web",
        id="a Gateway for everybody",
    ),
    pytest.param(
        {"gateway_classes": [named("traefik", status=condition("Accepted"))], "gateways": [gateway("Same")]},
        "router",
        "warning",
        "no listener takes routes",
        id="a Gateway for its own namespace",
    ),
    pytest.param(
        {
            "gateway_classes": [named("traefik", status=condition("Accepted"))],
            "gateways": [gateway("All", programmed="False")],
        },
        "router",
        "warning",
        "not programmed",
        id="a Gateway nobody serves",
    ),
    pytest.param(
        {"gateway_classes": [named("traefik", status=condition("Accepted", "False"))]},
        "router",
        "warning",
        "not accepted",
        id="a class without a controller",
    ),
    pytest.param(
        {"gateway_classes": [named("traefik", status=condition("Accepted"))]},
        "router",
        "warning",
        "there is no Gateway",
        id="a class without a Gateway",
    ),
    pytest.param(
        {"settings": {"profiles": {"mine": {"metricsPath": "/metrics"}, "other": {}}}},
        "metrics",
        "ok",
        "profile mine, vllm itself",
        id="profiles whose pods are read",
    ),
    pytest.param(
        {
            "settings": {
                "routers": [{"gatewayClass": "traefik", "kind": "traefik", "metricsUrl": "http://traefik/metrics"}]
            }
        },
        "metrics",
        "ok",
        "counts requests and errors at the router of class traefik",
        id="a router that is read",
    ),
    pytest.param(
        {"settings": {"profiles": {"vllm": {"metricsPath": ""}}}},
        "metrics",
        "warning",
        "no runtime profile has metrics",
        id="no profile whose pods could be read",
    ),
    pytest.param(
        {"nodes": [GPU_NODE], "pods": [GPU_POD]},
        "GPUs",
        "ok",
        "4 of nvidia.com/gpu, 3 free (NVIDIA-GeForce-RTX-4070)",
        id="GPUs with what is free",
    ),
    pytest.param(
        {"nodes": [GPU_NODE], "pods": None},
        "GPUs",
        "ok",
        "4 of nvidia.com/gpu (NVIDIA",
        id="GPUs without the right to see pods",
    ),
    pytest.param(
        {"nodes": [named("n", status={"allocatable": {"cpu": "8"}})]}, "GPUs", "warning", "none of 1 nodes", id="no GPU"
    ),
    pytest.param(
        {"claims": [claim("ReadWriteMany")]}, "storage", "ok", "claim models: ReadWriteMany", id="a claim for everybody"
    ),
    pytest.param(
        {"claims": [claim("ReadWriteOnce")]},
        "storage",
        "warning",
        "everything runs on the node",
        id="a claim of one node",
    ),
    pytest.param(
        {"claims": [claim("ReadWriteOncePod")]}, "storage", "missing", "cannot share it", id="a claim of one pod"
    ),
    pytest.param(
        {"claims": [claim("ReadWriteMany", phase="Pending")]},
        "storage",
        "warning",
        "is Pending",
        id="a claim that waits",
    ),
    pytest.param({"claims": []}, "storage", "warning", "has no PersistentVolumeClaim", id="no claim"),
    pytest.param(
        {
            "storage_classes": [
                named("fast", meta={"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}})
            ]
        },
        "storage",
        "ok",
        "fast (default fast)",
        id="a storage class",
    ),
    pytest.param({"denied": ("nodes", "pods")}, "not looked at", "warning", "nodes, pods", id="what may not be seen"),
]


@pytest.mark.parametrize(("facts", "about", "level", "says"), FINDINGS)
def test_a_finding_is(facts: Json, about: str, level: str, says: str) -> None:
    found = [one for one in judge(Facts(namespace="finance", **{**PLAIN, **facts}), now=NOW) if says in one.says]
    assert [(one.about, one.level) for one in found] == [(about, level)]
    assert bool(found[0].mend) == (level != "ok")


def fit(cluster: WholeCluster) -> None:
    """Everything that is needed."""
    for one in TWO_CRDS:
        cluster.put_somewhere(CRD, one["metadata"]["name"], spec=one["spec"], status=one["status"])
    cluster.put_somewhere(
        DEPLOYMENT,
        "lora-operator",
        namespace="lora-system",
        labels=OPERATOR,
        spec={"replicas": 1},
        status={"readyReplicas": 1},
    )
    cluster.put_somewhere(
        LEASE, "lora-operator", namespace="lora-system", spec={"renewTime": datetime.now(UTC).isoformat()}
    )
    settings = "routers:\n- {gatewayClass: traefik, metricsUrl: http://traefik/metrics}\n"
    cluster.put_somewhere(CONFIG_MAP, "s", namespace="lora-system", labels=OPERATOR, data={"settings.yaml": settings})
    cluster.put_somewhere(GATEWAY_CLASS, "traefik", status=condition("Accepted"))
    cluster.put_somewhere(
        GATEWAY, "public", namespace="infra", **{key: gateway("All")[key] for key in ("spec", "status")}
    )
    cluster.put_somewhere(NODE, "n", status=GPU_NODE["status"])
    cluster.put_somewhere(STORAGE_CLASS, "fast")
    cluster.put_somewhere(
        CLAIM, "models", namespace="finance", **{key: claim("ReadWriteMany")[key] for key in ("spec", "status")}
    )
    cluster.put_somewhere(INGRESS_CLASS, "nginx")


def test_a_fit_cluster_is_0_and_says_so(loractl: Terminal, cluster: WholeCluster) -> None:
    fit(cluster)
    result = loractl("doctor")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "The cluster is fit."


def remove_operator(cluster: WholeCluster) -> None:
    cluster.remove(DEPLOYMENT, "lora-operator", namespace="lora-system")


def remove_crd(cluster: WholeCluster) -> None:
    cluster.remove(CRD, "loraadapters.loraops.dev", namespace="")


def refuse_patch(cluster: WholeCluster) -> None:
    cluster.refused.add("patch loradeployments")


def refuse_deployments(cluster: WholeCluster) -> None:
    cluster.refused.add("list deployments everywhere")


def refuse_exec(cluster: WholeCluster) -> None:
    cluster.refused.add("create pods/exec")


def refuse_nodes(cluster: WholeCluster) -> None:
    cluster.refused.add("list nodes")


@pytest.mark.parametrize(
    ("harm", "code", "words"),
    [
        pytest.param(remove_operator, 1, "no Deployment of lora-operator", id="no operator"),
        pytest.param(remove_crd, 1, "loraadapters.loraops.dev is not installed", id="no CRD"),
        pytest.param(
            refuse_patch, 0, "you may not patch loradeployments.loraops.dev", id="a missing right is only a warning"
        ),
        pytest.param(
            refuse_exec, 0, "Ask for it: create on pods/exec in namespace finance.", id="the right to a subresource"
        ),
        pytest.param(
            refuse_deployments,
            0,
            "Ask for it: list on deployments in all namespaces.",
            id="a right in all namespaces",
        ),
        pytest.param(refuse_nodes, 0, "you may not list nodes", id="what may not be seen is only a warning"),
    ],
)
def test_each_harm_is_found(
    loractl: Terminal, cluster: WholeCluster, harm: Callable[[WholeCluster], None], code: int, words: str
) -> None:
    fit(cluster)
    harm(cluster)
    result = loractl("doctor")
    assert result.exit_code == code
    assert words in result.stdout


@pytest.mark.parametrize(
    "right",
    [
        *("get jobs", "create jobs", "delete jobs"),
        *("watch pods", "create pods", "delete pods", "get pods/exec", "create pods/exec", "list deployments"),
    ],
)
def test_what_prune_and_copies_do_is_looked_at(right: str) -> None:
    assert right in {f"{one.verb} {one.resource}" for one in RIGHTS}


def test_findings_for_programs(loractl: Terminal, cluster: WholeCluster) -> None:
    fit(cluster)
    assert {one["level"] for one in json.loads(loractl("doctor", "-o", "json").stdout)} == {"ok"}

"""Kubernetes objects that make a bare plane usable: DNS Service, rights, Gateway, local volumes."""

from pathlib import Path
from typing import Any

from devcluster.addresses import Instance

__all__ = ["dns", "gateway", "local_volume", "rbac", "traefik_account"]

Json = dict[str, Any]


def dns(instance: Instance) -> list[Json]:
    """CoreDNS runs beside the plane, so its Service has no selector and its slice is written by hand."""
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"clusterIP": instance.dns_service, "ports": ports},
    }
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [instance.address], "conditions": {"ready": True}}],
    }
    return [service, slice_]


def rbac() -> list[Json]:
    """What kubeadm would set up: kube-proxy may read what it needs through the built-in role."""
    return [_binding("devcluster:proxy", role="system:node-proxier", user="system:kube-proxy")]


def traefik_account() -> list[Json]:
    """Namespace, account and rights of the data plane."""
    read = ["get", "list", "watch"]
    gateway = ["gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "tcproutes", "referencegrants",
               "backendtlspolicies"]  # fmt: skip
    status = ["gatewayclasses/status", "gateways/status", "httproutes/status", "grpcroutes/status", "tlsroutes/status",
              "tcproutes/status", "backendtlspolicies/status"]  # fmt: skip
    core = ["services", "secrets", "nodes", "namespaces", "configmaps", "pods"]
    rules = [
        {"apiGroups": [""], "resources": core, "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": ["gateway.networking.k8s.io"], "resources": gateway, "verbs": read},
        {"apiGroups": ["gateway.networking.k8s.io"], "resources": status, "verbs": ["update", "patch"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingressclasses"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update", "patch"]},
    ]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "devcluster:traefik"},
        "rules": rules,
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "infra"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "traefik", "namespace": "infra"}},
        role,
        _binding("devcluster:traefik", role="devcluster:traefik", account=("infra", "traefik")),
    ]


def gateway() -> list[Json]:
    """GatewayClass `traefik`, Gateway `public` open to every namespace, IngressClass `nginx`."""
    api = "gateway.networking.k8s.io/v1"
    listener = {
        "name": "web",
        "port": 8000,
        "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    return [
        {
            "apiVersion": api,
            "kind": "GatewayClass",
            "metadata": {"name": "traefik"},
            "spec": {"controllerName": "traefik.io/gateway-controller"},
        },
        {
            "apiVersion": api,
            "kind": "Gateway",
            "metadata": {"name": "public", "namespace": "infra"},
            "spec": {"gatewayClassName": "traefik", "listeners": [listener]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": "nginx"},
            "spec": {"controller": "k8s.io/ingress-nginx"},
        },
    ]


def local_volume(*, namespace: str, name: str, directory: Path, size: str, nodes: list[str]) -> list[Json]:
    """A `local` volume (it honours fsGroup, hostPath does not) reserved for one claim, and that claim."""
    volume_name = f"{namespace}-{name}"
    affinity = {"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": name},
            "local": {"path": str(directory)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [affinity]}]}},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": volume_name,
            "resources": {"requests": {"storage": size}},
        },
    }
    return [volume, claim]


def _binding(name: str, *, role: str, user: str | None = None, account: tuple[str, str] | None = None) -> Json:
    if account is not None:
        subject = {"kind": "ServiceAccount", "namespace": account[0], "name": account[1]}
    else:
        subject = {"kind": "User", "name": str(user), "apiGroup": "rbac.authorization.k8s.io"}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }

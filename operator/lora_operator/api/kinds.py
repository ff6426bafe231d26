"""The kinds of object that the operator reads or writes, as plain data (no client types)."""

from dataclasses import dataclass

__all__ = [
    "ADAPTER", "CLAIM", "CONFIG_MAP", "CONTROLLER_REVISION", "DEPLOYMENT", "DISRUPTION_BUDGET", "ENDPOINT_SLICE", "EVENT", "GATEWAY",
    "GATEWAY_CLASS", "HTTP_ROUTE", "INGRESS", "JOB", "LEASE", "LORA_DEPLOYMENT", "NODE", "POD", "SERVICE", "VOLUME", "Kind",
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Group, version, plural and kind, e.g. batch/v1 jobs Job."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apiVersion` of a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version


ADAPTER = Kind("loraops.dev", "v1alpha1", "loraadapters", "LoRAAdapter")
LORA_DEPLOYMENT = Kind("loraops.dev", "v1alpha1", "loradeployments", "LoRADeployment")
JOB = Kind("batch", "v1", "jobs", "Job")
POD = Kind("", "v1", "pods", "Pod")
SERVICE = Kind("", "v1", "services", "Service")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUME = Kind("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
EVENT = Kind("", "v1", "events", "Event")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
CONTROLLER_REVISION = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
DISRUPTION_BUDGET = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
GATEWAY = Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway")
GATEWAY_CLASS = Kind("gateway.networking.k8s.io", "v1", "gatewayclasses", "GatewayClass", namespaced=False)
INGRESS = Kind("networking.k8s.io", "v1", "ingresses", "Ingress")

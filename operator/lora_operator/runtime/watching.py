"""The kinds the operator follows, which of their objects concern us, and to which custom resource an event belongs.

kopf watches; this page says what. Children are selected on the server by our own label, so that a busy cluster costs nothing.
"""

from collections.abc import Iterator
from typing import Any

from lora_operator.api.kinds import (
    ADAPTER,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    INGRESS,
    JOB,
    LORA_DEPLOYMENT,
    POD,
    SERVICE,
    Kind,
)
from lora_operator.api.names import FIELD_MANAGER, LABEL_ADAPTER, LABEL_DEPLOYMENT
from lora_operator.runtime.cache import Cache
from lora_operator.runtime.queue import Key

__all__ = ["CHILDREN", "OURS", "RESOURCES", "keys_of"]

RESOURCES = (ADAPTER, LORA_DEPLOYMENT)
CHILDREN = (JOB, POD, DEPLOYMENT, SERVICE, ENDPOINT_SLICE, CONTROLLER_REVISION, DISRUPTION_BUDGET, HTTP_ROUTE, INGRESS)
OURS = f"app.kubernetes.io/managed-by={FIELD_MANAGER}"
# Pods and slices are made by Kubernetes' own controllers, which copy our labels from template and Service.
LABELS = ((LABEL_ADAPTER, ADAPTER), (LABEL_DEPLOYMENT, LORA_DEPLOYMENT))


def keys_of(kind: Kind, obj: dict[str, Any], *, cache: Cache) -> Iterator[Key]:
    """Which custom resources should look again because of this object."""
    meta = obj["metadata"]
    namespace = str(meta.get("namespace", ""))
    if kind in RESOURCES:
        yield Key(kind.plural, namespace, str(meta["name"]))
        if kind is ADAPTER:  # whoever serves it, or waits for it, wants to know
            for deployment in cache.naming(LORA_DEPLOYMENT, namespace=namespace, name=str(meta["name"])):
                yield Key(LORA_DEPLOYMENT.plural, namespace, str(deployment["metadata"]["name"]))
        return
    labels = meta.get("labels") or {}
    for label, owner in LABELS:
        if label in labels:
            yield Key(owner.plural, namespace, str(labels[label]))

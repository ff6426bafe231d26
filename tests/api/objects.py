"""The smallest valid objects of both kinds, and how a test changes them."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

ABSENT: Any = object()  # as a value of `changed`: take the field away
DIGEST = "sha256:" + "0" * 64
PVC = {"pvc": {"claimName": "models", "path": "base"}}

ADAPTER: Mapping[str, Any] = {
    "apiVersion": "loraops.dev/v1alpha1",
    "kind": "LoRAAdapter",
    "metadata": {"name": "fin-v1"},
    "spec": {
        "base": {"source": PVC},
        "adapters": [{"name": "main", "source": {"pvc": {"claimName": "models", "path": "adapters/v1"}}}],
        "artifact": {"store": {"pvc": {"claimName": "models", "path": "artifacts"}}},
    },
}
DEPLOYMENT: Mapping[str, Any] = {
    "apiVersion": "loraops.dev/v1alpha1",
    "kind": "LoRADeployment",
    "metadata": {"name": "fin-assistant"},
    "spec": {
        "adapterRef": {"name": "fin-v1"},
        "runtime": {"profile": "transformers"},
        "traffic": {"service": {}},
    },
}


def changed(manifest: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the value at each dotted path set, made where it is missing, or taken away (ABSENT); numbers index lists."""
    result = deepcopy(dict(manifest))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = result
        for word in parents:
            place = place[int(word)] if isinstance(place, list) else place.setdefault(word, {})
        if value is ABSENT:
            del place[last]
        elif isinstance(place, list):
            place[int(last)] = deepcopy(value)
        else:
            place[last] = deepcopy(value)
    return result

"""Metadata that every child of a LoRADeployment carries, and the stamp by which a changed wish is noticed.

The stamp is a hash of all that we want. Comparing live fields alone would miss a field that we stopped wanting.
"""

from collections.abc import Mapping
from typing import Any

from lora_operator.api.names import GROUP, LABEL_DEPLOYMENT, LABEL_REVISION, canonical_hash, child_labels
from lora_operator.core.build.owner import Owner

__all__ = ["MANIFEST_HASH", "metadata_of", "revision_labels", "selector_of", "stamped"]

MANIFEST_HASH = f"{GROUP}/manifest-hash"


def metadata_of(owner: Owner, *, name: str, component: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Name, namespace, labels and owner of a child."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": child_labels(instance=owner.name, component=component, deployment=owner.name) | dict(labels or {}),
        "ownerReferences": [owner.reference],
    }


def selector_of(owner: Owner, *, revision: str) -> dict[str, str]:
    """Which pods belong to a revision."""
    return {LABEL_DEPLOYMENT: owner.name, LABEL_REVISION: revision}


def revision_labels(revision: str) -> dict[str, str]:
    """The label that a revision's own objects carry beside the common ones."""
    return {LABEL_REVISION: revision}


def stamped(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the hash of itself among its annotations."""
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}) | {MANIFEST_HASH: canonical_hash(manifest, digits=16)}
    return manifest | {"metadata": metadata | {"annotations": annotations}}

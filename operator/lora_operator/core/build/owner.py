"""Who a child belongs to: namespace, name and uid of the LoRADeployment, and the owner reference made of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_operator.api.kinds import LORA_DEPLOYMENT

__all__ = ["Owner", "is_owned"]


@dataclass(frozen=True)
class Owner:
    """Identity of the custom resource whose children are built."""

    namespace: str
    name: str
    uid: str

    @property
    def reference(self) -> dict[str, Any]:
        """The controller reference: garbage collection and `is this ours?` both hang on its uid."""
        return {
            "apiVersion": LORA_DEPLOYMENT.api_version,
            "kind": LORA_DEPLOYMENT.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def is_owned(manifest: Mapping[str, Any], *, uid: str) -> bool:
    """Whether the object's controller is the resource with that uid. A namesake of an earlier life is foreign."""
    references = manifest.get("metadata", {}).get("ownerReferences") or ()
    return any(ref.get("controller") and ref.get("uid") == uid for ref in references)

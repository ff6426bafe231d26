"""Pods that share a ReadWriteOnce claim must run on one node: the volume is attached there and nowhere else.

Each of our pods that mounts such a claim carries a label made of the claim's name and a required affinity to pods with that label.
The first pod may run anywhere (Kubernetes lets a pod that matches its own affinity be the first), every further one follows it;
a finished pod no longer counts. Needs no right on nodes or volumes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_operator.api.names import GROUP, canonical_hash

__all__ = ["is_single_node", "on_claims_node"]


def is_single_node(access_modes: Sequence[str]) -> bool:
    """Whether a claim can be mounted on one node only."""
    return "ReadWriteOnce" in access_modes and not {"ReadWriteMany", "ReadOnlyMany"} & set(access_modes)


def on_claims_node(template: Mapping[str, Any], *, claims: Iterable[str]) -> dict[str, Any]:
    """A pod template (metadata, spec) bound to the node of these claims; what it says of affinity itself still holds."""
    labels = {f"claim.{GROUP}/{canonical_hash(claim, digits=16)}": "" for claim in sorted(claims)}
    if not labels:
        return dict(template)
    spec, metadata = template["spec"], template.get("metadata", {})
    affinity = dict(spec.get("affinity") or {})
    together = dict(affinity.get("podAffinity") or {})
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    together[required] = [*together.get(required, ()), *(_beside(label) for label in labels)]
    return {
        **template,
        "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **labels}},
        "spec": {**spec, "affinity": {**affinity, "podAffinity": together}},
    }


def _beside(label: str) -> dict[str, Any]:
    return {
        "labelSelector": {"matchExpressions": [{"key": label, "operator": "Exists"}]},
        "topologyKey": "kubernetes.io/hostname",
    }

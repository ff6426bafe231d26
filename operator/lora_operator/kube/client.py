"""The few calls the operator makes, over plain dictionaries (typed models drop unknown fields silently)."""

from collections.abc import Mapping
from typing import Any, Protocol

from lora_operator.api.kinds import Kind

__all__ = ["Json", "Kube"]

Json = dict[str, Any]


class Kube(Protocol):
    """A Kubernetes API. Raises the errors of kube/errors.py and nothing else."""

    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> Json | None:
        """A live read; None when there is no such object."""

    async def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "") -> list[Json]:
        """All objects of a kind, paged; `namespace` None means every namespace we may see."""

    async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Json:
        """POST. Raises AlreadyExists."""

    async def apply(self, kind: Kind, manifest: Mapping[str, Any], *, force: bool) -> Json:
        """Server-side apply as field manager `lora-operator`. Without force, Conflict when another manager owns a field."""

    async def patch(
        self, kind: Kind, *, namespace: str, name: str, body: Mapping[str, Any], subresource: str | None = None
    ) -> Json:
        """JSON merge patch; `metadata.resourceVersion` or `metadata.uid` in the body are preconditions (Conflict)."""

    async def delete(self, kind: Kind, *, namespace: str, name: str, uid: str) -> None:
        """DELETE with background propagation and a uid precondition; an absent object is success."""

"""What a router adds to the pure `core.rollout.router.Router`: reading its object and what its controller says of it.

One writer per route: each LoRADeployment owns its route object alone.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from lora_operator.api.kinds import Kind
from lora_operator.core.build.owner import Owner
from lora_operator.core.rollout.pods import Pod
from lora_operator.core.rollout.router import Router, RouteState
from lora_operator.kube.client import Json, Kube

__all__ = ["ReadingRouter"]


class ReadingRouter(Router, Protocol):
    """read, write, verify. `kind` is that of the objects it writes."""

    kind: Kind

    def names(self, owner: Owner) -> tuple[str, ...]:
        """Of all objects that may make up the route, that of the deployment itself first."""

    def named_by(self, live: Json, *, owner: Owner, pods: Sequence[Pod]) -> frozenset[str]:
        """Revisions that one of its objects may send requests to."""

    async def read(
        self, kube: Kube, *, owner: Owner, cached: Mapping[str, Json], fresh: bool, pods: Sequence[Pod] = ()
    ) -> RouteState | None:
        """The route as it is; None when there is none. `cached`: by name; `fresh`: a live read, a shift depends on it."""

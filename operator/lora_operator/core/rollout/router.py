"""What the state machine knows of traffic: a route as it was seen, and a router that writes one and judges one.

The implementations live in routing/ (they also read, which is I/O); `write` and `verify` are pure, so a decision can
call them. Weights are shares of 100 by revision; an empty mapping means that there shall be no route.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lora_operator.api.kinds import Kind
from lora_operator.api.reasons import Reason
from lora_operator.core.build.forced import Forced
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.revision import Revision
from lora_operator.core.plan import Effect
from lora_operator.core.rollout.pods import Pod

__all__ = ["RouteState", "Router", "Verdict"]


@dataclass(frozen=True)
class RouteState:
    """The route object as it is, and what its controller says of it."""

    kind: Kind
    live: Mapping[str, Any]
    owned: bool
    weights: Mapping[str, int]  # by revision, as requests are shared now; empty when the object's rules disagree
    accepted: bool  # the data plane's controller took exactly this generation
    reason: Reason  # why it is not accepted
    message: str
    endpoints: tuple[str, ...] = ()  # where clients reach it
    pods: tuple[Pod, ...] = ()  # of all versions, for a router that shares requests by pods
    others: tuple[Mapping[str, Any], ...] = ()  # further objects that the route is made of
    named: frozenset[str] = frozenset()  # revisions that any of its objects may send requests to, agreeing or not

    @property
    def objects(self) -> tuple[Mapping[str, Any], ...]:
        """All objects that the route is made of."""
        return (self.live, *self.others)

    @property
    def name(self) -> str:
        """Its name, for messages."""
        return str(self.live["metadata"]["name"])

    @property
    def uid(self) -> str:
        """Precondition of a delete."""
        return str(self.live["metadata"]["uid"])


@dataclass(frozen=True)
class Verdict:
    """Whether traffic is known to flow as wanted."""

    confirmed: bool
    reason: Reason = Reason.STABLE
    message: str = ""
    written: bool = False  # the object says it, whether or not its controller took it


class Router(Protocol):
    """One way to bring requests to revisions."""

    def write(
        self,
        owner: Owner,
        *,
        route: RouteState | None,
        revision: Revision | None,
        weights: Mapping[str, int],
        forced: Forced | None = None,
    ) -> tuple[Effect, ...]:
        """Effects that make the route say `weights`; none when it does. `revision` gives the runtime's own paths.

        `forced`: requests that reach one revision whatever the weights; None: there are none.
        """

    def verify(
        self, owner: Owner, *, route: RouteState | None, weights: Mapping[str, int], forced: Forced | None = None
    ) -> Verdict:
        """Whether the route says all of it and its controller confirmed it."""

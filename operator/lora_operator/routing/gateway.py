"""Gateway API: an operator-owned HTTPRoute on the user's Gateways.

verify = the route says the weights, and every parent's controller reports Accepted and ResolvedRefs for exactly this
generation. A controller that has not spoken yet is waited for; a missing Gateway and a refusing listener are told apart.

Accepted is said when a route was read, not when it is served: Traefik applies one change in two seconds. So where the settings say how a
controller is reached, the route has one rule more (core/build/fence.py), and is confirmed once a request on it is answered.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_operator.api.deployment import GatewayTraffic
from lora_operator.api.kinds import GATEWAY, HTTP_ROUTE
from lora_operator.api.reasons import Reason
from lora_operator.core.build.fence import fence_mark, fences_of, is_fence
from lora_operator.core.build.forced import Forced
from lora_operator.core.build.httproute import build_http_route, header_match
from lora_operator.core.build.owner import Owner, is_owned
from lora_operator.core.build.revision import Revision
from lora_operator.core.plan import Effect
from lora_operator.core.rollout.children import apply_if_differs, delete_object
from lora_operator.core.rollout.pods import Pod
from lora_operator.core.rollout.router import RouteState, Verdict
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import NotFound
from lora_operator.routing.controller import Controllers, what_is_missing
from lora_operator.routing.listener import endpoints_of, host_of

__all__ = ["GatewayRouter", "shares_of"]


class GatewayRouter:
    """Router of `traffic.gateway`."""

    kind = HTTP_ROUTE

    def __init__(self, traffic: GatewayTraffic, *, controllers: Controllers | None = None) -> None:
        """`controllers`: of the settings. One that they do not name is not asked."""
        self._traffic = traffic
        self._controllers = controllers or Controllers()
        # Whether the Gateways' controllers are named there; None: not read yet.
        self._is_asked: bool | None = None if self._controllers.gateway else False

    def names(self, owner: Owner) -> tuple[str, ...]:
        """One HTTPRoute."""
        return (owner.name,)

    def named_by(
        self,
        live: Json,
        *,
        owner: Owner,
        pods: Sequence[Pod],  # noqa: ARG002 (backends are in the route itself)
    ) -> frozenset[str]:
        """Every backend of every rule, whatever its weight."""
        rules = live["spec"].get("rules") or ()
        backends = (backend for rule in rules for backend in rule.get("backendRefs") or ())
        return frozenset(str(backend["name"]).removeprefix(f"{owner.name}-") for backend in backends)

    async def read(
        self,
        kube: Kube,
        *,
        owner: Owner,
        cached: Mapping[str, Json],
        fresh: bool,
        pods: Sequence[Pod] = (),
    ) -> RouteState | None:
        """The route, and the Gateways it hangs on."""
        known = cached.get(owner.name)
        live = await _live_route(kube, owner) if fresh or known is None else known
        if live is None:
            await self._parents(kube, owner)
            return None
        accepted, reason, message = _acceptance(live, wanted=self._traffic.parent_refs, namespace=owner.namespace)
        endpoints: tuple[str, ...] = ()
        if fresh or not accepted:
            parents = await self._parents(kube, owner)
            found = [(ref, gateway) for ref, gateway in parents if gateway is not None]
            missing = [_where(ref, owner.namespace) for ref, gateway in parents if gateway is None]
            endpoints = tuple(self._endpoints(found))
            if missing:
                accepted, reason = False, Reason.GATEWAY_NOT_FOUND
                message = f"spec.traffic.gateway.parentRefs names {', '.join(missing)}, which does not exist"
            elif accepted and fresh:
                reason, message = await self._asked(live, found)
                accepted = not message
        return RouteState(
            kind=HTTP_ROUTE,
            live=live,
            owned=is_owned(live, uid=owner.uid),
            weights=shares_of(live, owner=owner),
            accepted=accepted,
            reason=reason,
            message=message,
            endpoints=endpoints,
            named=self.named_by(live, owner=owner, pods=pods),
        )

    async def _parents(self, kube: Kube, owner: Owner) -> list[tuple[Mapping[str, Any], Json | None]]:
        """The Gateways that the spec names; from now on it is known whether their controllers are asked."""
        found = [(ref, await _gateway(kube, ref, namespace=owner.namespace)) for ref in self._traffic.parent_refs]
        named = {str(gateway["spec"].get("gatewayClassName", "")) for _, gateway in found if gateway is not None}
        self._is_asked = bool(named & self._controllers.gateway.keys())
        return found

    def _endpoints(self, parents: Iterable[tuple[Mapping[str, Any], Json]]) -> Iterable[str]:
        for ref, gateway in parents:
            yield from endpoints_of(ref, gateway, hostnames=self._traffic.hostnames)

    async def _asked(self, route: Json, parents: Iterable[tuple[Mapping[str, Any], Json]]) -> tuple[Reason, str]:
        """What is missing; an empty message once each controller answers on the fence, or where nobody is to be asked."""
        for ref, gateway in parents:
            named = str(gateway["spec"].get("gatewayClassName", ""))
            url = self._controllers.gateway.get(named, "")
            host = host_of(ref, gateway, hostnames=self._traffic.hostnames)
            for fence in fences_of(route, host=host) if url else ():
                reason, said = await what_is_missing(
                    self._controllers.ask, url, fence=fence, of=f"GatewayClass {named}", written="HTTPRoute"
                )
                if said:
                    return reason, said
        return Reason.STABLE, ""

    def write(
        self,
        owner: Owner,
        *,
        route: RouteState | None,
        revision: Revision | None,
        weights: Mapping[str, int],
        forced: Forced | None = None,
    ) -> tuple[Effect, ...]:
        """The whole route at once, or its deletion."""
        if route is not None and not route.owned:
            return ()
        if not weights:
            return () if route is None else (delete_object(HTTP_ROUTE, route.live),)
        if revision is None:
            return ()
        wanted = build_http_route(
            owner, self._traffic, routes=revision.routes, weights=weights, forced=forced, fenced=self._fenced(route)
        )
        return apply_if_differs(HTTP_ROUTE, live=None if route is None else route.live, wanted=wanted)

    def verify(
        self, owner: Owner, *, route: RouteState | None, weights: Mapping[str, int], forced: Forced | None = None
    ) -> Verdict:
        """Whether requests are known to go where `weights` says."""
        if not weights:
            gone = route is None or not route.owned
            return Verdict(confirmed=gone, message="" if gone else "the route is being removed")
        if route is None or route.weights != weights or not _forces(owner, route.live, forced):
            return Verdict(confirmed=False, reason=Reason.PROMOTING, message="the route is being written")
        if self._fenced(route) and not _fences(route.live, mark=fence_mark(weights=weights, forced=forced)):
            return Verdict(confirmed=False, reason=Reason.PROMOTING, message="the route is being written")
        if not route.accepted:
            return Verdict(confirmed=False, reason=route.reason, message=route.message, written=True)
        return Verdict(confirmed=True)

    def _fenced(self, route: RouteState | None) -> bool:
        """Whether its controller is asked. Where the Gateways were not read the route stays as it is: a controller that nobody asks may
        not know a fence's filter, and drop the whole route."""
        if self._is_asked is None:
            return route is not None and any(is_fence(rule) for rule in route.live["spec"].get("rules") or ())
        return self._is_asked


def shares_of(route: Mapping[str, Any], *, owner: Owner) -> Mapping[str, int]:
    """Weights by revision as the route says them; empty when its rules disagree or name what is not ours."""
    found: list[dict[str, int]] = []
    for rule in route["spec"].get("rules") or ():
        if _headers(rule):
            continue
        shares: dict[str, int] = {}
        for backend in rule.get("backendRefs") or ():
            weight = int(backend.get("weight", 1))
            if weight:
                shares[str(backend["name"]).removeprefix(f"{owner.name}-")] = weight
        found.append(shares)
    if not found or any(shares != found[0] for shares in found):
        return {}
    return found[0]


def _headers(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a request must carry, beside its path, for this rule."""
    return [header for match in rule.get("matches") or () for header in match.get("headers") or ()]


def _forces(owner: Owner, route: Mapping[str, Any], forced: Forced | None) -> bool:
    """Whether exactly the requests that are forced have rules of their own, on every path."""
    rules = [rule for rule in route["spec"].get("rules") or () if not is_fence(rule)]
    with_headers = [rule for rule in rules if _headers(rule)]
    if forced is None:
        return not with_headers
    wanted = header_match(forced.match)
    to_it = [
        rule
        for rule in with_headers
        if _headers(rule) == [wanted]
        and [str(b["name"]) for b in rule.get("backendRefs") or ()] == [f"{owner.name}-{forced.revision}"]
    ]
    return len(to_it) == len(with_headers) == len(rules) - len(with_headers)


def _fences(route: Mapping[str, Any], *, mark: str) -> bool:
    """Whether it has the fence of exactly this distribution."""
    return [fence.mark for fence in fences_of(route, host="")] == [mark]


def _acceptance(
    route: Mapping[str, Any], *, wanted: Iterable[Mapping[str, Any]], namespace: str
) -> tuple[bool, Reason, str]:
    """Accepted and ResolvedRefs of every parent, for the generation that is stored now."""
    generation = route["metadata"].get("generation")
    parents = (route.get("status") or {}).get("parents") or ()
    for ref in wanted:
        ours = [parent for parent in parents if _same_parent(parent.get("parentRef") or {}, ref, namespace)]
        conditions = {c["type"]: c for parent in ours for c in parent.get("conditions") or ()}
        for kind in ("Accepted", "ResolvedRefs"):
            condition = conditions.get(kind)
            if condition is None or condition.get("observedGeneration", generation) != generation:
                return False, Reason.PROMOTING, f"{_where(ref, namespace)} has not taken the route yet"
            if condition["status"] != "True":
                said = f"{condition.get('reason', '')}: {condition.get('message', '')}"
                return False, Reason.ROUTE_NOT_ACCEPTED, f"{_where(ref, namespace)}: {kind} is False, {said}"
    return True, Reason.STABLE, ""


def _same_parent(seen: Mapping[str, Any], wanted: Mapping[str, Any], namespace: str) -> bool:
    return (
        seen.get("name") == wanted.get("name")
        and seen.get("namespace", namespace) == wanted.get("namespace", namespace)
        and seen.get("sectionName") == wanted.get("sectionName")
    )


def _where(ref: Mapping[str, Any], namespace: str) -> str:
    section = f" listener {ref['sectionName']}" if ref.get("sectionName") else ""
    return f"Gateway {ref.get('namespace', namespace)}/{ref.get('name')}{section}"


async def _live_route(kube: Kube, owner: Owner) -> Json | None:
    try:
        return await kube.get(HTTP_ROUTE, namespace=owner.namespace, name=owner.name)
    except NotFound:
        return None


async def _gateway(kube: Kube, ref: Mapping[str, Any], *, namespace: str) -> Json | None:
    try:
        return await kube.get(GATEWAY, namespace=ref.get("namespace", namespace), name=str(ref["name"]))
    except NotFound:
        return None

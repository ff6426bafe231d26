"""Ingress: pairs of objects with canary annotations, written one after the other.

    one version    primaries ► their backend        then the canary twins go: no request bounces
    canary         primaries ► serving version      then the twins with their weight
    either         then the fence (core/build/fence.py), where the settings say how the controller is reached

An Ingress has no word of acceptance. With a fence it is confirmed once the controller answers a request on it: before, a controller
that is late still answers 404 on a new host, or sends requests to a version that the state machine has left. Without one it is confirmed
as soon as the API server holds all of them and they agree.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_operator.api.deployment import IngressTraffic
from lora_operator.api.kinds import INGRESS
from lora_operator.api.reasons import Reason
from lora_operator.core.build.fence import FENCE_PATH, Fence, build_fence, fence_host, fence_name
from lora_operator.core.build.forced import Forced
from lora_operator.core.build.ingress import CANARY_WEIGHT, build_ingresses, ingress_names, match_of
from lora_operator.core.build.owner import Owner, is_owned
from lora_operator.core.build.revision import Revision
from lora_operator.core.plan import Effect
from lora_operator.core.rollout.children import apply_if_differs, delete_object
from lora_operator.core.rollout.pods import Pod
from lora_operator.core.rollout.router import RouteState, Verdict
from lora_operator.kube.client import Json, Kube
from lora_operator.routing.controller import Controllers, what_is_missing

__all__ = ["IngressRouter"]

TOTAL = 100
TWIN = "-canary"


class IngressRouter:
    """Router of `traffic.ingress`."""

    kind = INGRESS

    def __init__(self, traffic: IngressTraffic, *, controllers: Controllers | None = None) -> None:
        """`controllers`: of the settings. One that they do not name is not asked."""
        self._traffic = traffic
        self._controllers = controllers or Controllers()
        self._url = self._controllers.ingress.get(traffic.class_name, "")  # empty: there is no fence

    def names(self, owner: Owner) -> tuple[str, ...]:
        """Of all objects that may make up the route."""
        return (*ingress_names(owner), fence_name(owner))

    def named_by(
        self,
        live: Json,
        *,
        owner: Owner,
        pods: Sequence[Pod],  # noqa: ARG002 (the backend is in the Ingress itself)
    ) -> frozenset[str]:
        """The backend of every path, a twin's too whatever its weight."""
        return frozenset(_revisions(live, owner=owner))

    async def read(
        self,
        kube: Kube,
        *,
        owner: Owner,
        cached: Mapping[str, Json],
        fresh: bool,
        pods: Sequence[Pod] = (),
    ) -> RouteState | None:
        """The Ingresses as they are; None when there is none."""
        found = dict(cached)
        if fresh or owner.name not in cached:
            live = {name: await kube.get(INGRESS, namespace=owner.namespace, name=name) for name in self.names(owner)}
            found = {name: obj for name, obj in live.items() if obj is not None}
        if not found:
            return None
        objects = sorted(found.values(), key=lambda obj: (is_owned(obj, uid=owner.uid), obj["metadata"]["name"]))
        foreign = not is_owned(objects[0], uid=owner.uid)
        main = objects[0] if foreign else found.get(owner.name, objects[0])
        fence = found.get(fence_name(owner))
        reason, said = await self._asked(fence) if fresh and fence is not None and not foreign else (Reason.STABLE, "")
        return RouteState(
            kind=INGRESS,
            live=main,
            owned=not foreign,
            weights={} if foreign else _agreed(found, owner=owner),
            accepted=not said,
            reason=reason,
            message=said,
            endpoints=self._endpoints(main),
            others=tuple(obj for obj in objects if obj is not main),
            named=frozenset().union(*(self.named_by(obj, owner=owner, pods=pods) for obj in objects)),
        )

    async def _asked(self, fence: Json) -> tuple[Reason, str]:
        """What is missing; an empty message once the controller answers on the fence, or where nobody is to be asked."""
        if not self._url:
            return Reason.STABLE, ""
        host = str(fence["spec"]["rules"][0].get("host", ""))
        return await what_is_missing(
            self._controllers.ask,
            self._url,
            fence=Fence(host=host, path=FENCE_PATH),
            of=f"Ingress class {self._traffic.class_name}",
            written="Ingresses",
        )

    def write(
        self,
        owner: Owner,
        *,
        route: RouteState | None,
        revision: Revision | None,
        weights: Mapping[str, int],
        forced: Forced | None = None,
    ) -> tuple[Effect, ...]:
        """What differs, primaries first; then what is not wanted any more; the fence last."""
        if route is not None and not route.owned:
            return ()
        live = {} if route is None else {str(obj["metadata"]["name"]): obj for obj in route.objects}
        if weights and revision is None:
            return ()
        wanted: dict[str, Mapping[str, object]] = {}
        if weights and revision is not None:
            built = build_ingresses(owner, self._traffic, routes=revision.routes, weights=weights, forced=forced)
            wanted = {manifest["metadata"]["name"]: manifest for manifest in built}
        fence = self._fence(owner, revision=revision, weights=weights, forced=forced)
        unwanted = [name for name in sorted(live) if name not in wanted and (not fence or name != fence_name(owner))]
        effects: list[Effect] = []
        for name, manifest in wanted.items():
            effects += apply_if_differs(INGRESS, live=live.get(name), wanted=manifest)
        effects += [delete_object(INGRESS, live[name]) for name in unwanted]
        if fence:
            effects += apply_if_differs(INGRESS, live=live.get(fence_name(owner)), wanted=fence)
        return tuple(effects)

    def _fence(
        self, owner: Owner, *, revision: Revision | None, weights: Mapping[str, int], forced: Forced | None
    ) -> Mapping[str, object]:
        """Empty where there is to be none."""
        if not self._url or not weights or revision is None:
            return {}
        return build_fence(
            owner, class_name=self._traffic.class_name, routes=revision.routes, weights=weights, forced=forced
        )

    def verify(
        self, owner: Owner, *, route: RouteState | None, weights: Mapping[str, int], forced: Forced | None = None
    ) -> Verdict:
        """Whether all pairs say it, and the controller answers on the fence behind them."""
        if not weights:
            gone = route is None or not route.owned
            return Verdict(confirmed=gone, message="" if gone else "the Ingresses are being removed")
        if route is None or route.weights != weights or not _forces(owner, route, forced):
            return Verdict(confirmed=False, reason=Reason.PROMOTING, message="the Ingresses are being written")
        if self._url and not _fenced(owner, route, host=fence_host(owner, weights=weights, forced=forced)):
            return Verdict(confirmed=False, reason=Reason.PROMOTING, message="the Ingresses are being written")
        if not route.accepted:
            return Verdict(confirmed=False, reason=route.reason, message=route.message, written=True)
        return Verdict(confirmed=True, written=True)

    def _endpoints(self, main: Json) -> tuple[str, ...]:
        """The declared host, or where the controller says that it listens."""
        addresses = ((main.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        hosts = [self._traffic.host] if self._traffic.host else [a.get("hostname") or a.get("ip") for a in addresses]
        prefix = self._traffic.path.rstrip("/")
        return tuple(f"http://{host}{prefix}/v1/chat/completions" for host in hosts if host)


def _fenced(owner: Owner, route: RouteState, *, host: str) -> bool:
    """Whether the fence of exactly this distribution is written."""
    fences = (obj for obj in route.objects if obj["metadata"]["name"] == fence_name(owner))
    return any(rule.get("host") == host for fence in fences for rule in fence["spec"].get("rules") or ())


def _forces(owner: Owner, route: RouteState, forced: Forced | None) -> bool:
    """Whether the twins take the requests that are forced, and no others."""
    twins = [obj for obj in route.objects if obj["metadata"]["name"].endswith(TWIN)]
    said = {(next(iter(_revisions(twin, owner=owner)), ""), match_of(twin)) for twin in twins}
    if forced is None:
        return all(match is None for _, match in said)
    return said == {(forced.revision, forced.match)}


def _agreed(found: Mapping[str, Json], *, owner: Owner) -> Mapping[str, int]:
    """Shares by revision as every pair says them; empty when they disagree."""
    primaries = [name for name in found if not name.endswith(TWIN) and name != fence_name(owner)]
    twins = {name for name in found if name.endswith(TWIN)}
    shares = [_shares(found[name], found.get(name + TWIN), owner=owner) for name in primaries]
    orphans = twins - {name + TWIN for name in primaries}
    if orphans or not shares or owner.name not in found or any(share != shares[0] for share in shares):
        return {}
    return shares[0]


def _shares(primary: Json, twin: Json | None, *, owner: Owner) -> Mapping[str, int]:
    serving = _revision(primary, owner=owner)
    if twin is None:
        return {serving: TOTAL}
    text = (twin["metadata"].get("annotations") or {}).get(CANARY_WEIGHT, "0")
    moved = min(TOTAL, int(text)) if text.isdigit() else 0
    candidate = _revision(twin, owner=owner)
    if candidate == serving:
        return {serving: TOTAL}
    shares = {serving: TOTAL - moved, candidate: moved}
    return {revision: share for revision, share in shares.items() if share > 0}


def _revision(ingress: Json, *, owner: Owner) -> str:
    """Of the backend of its first path; our Ingresses name one Service only."""
    return next(iter(_revisions(ingress, owner=owner)), "")


def _revisions(ingress: Mapping[str, Any], *, owner: Owner) -> Iterable[str]:
    for rule in ingress["spec"].get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            name = str(((path.get("backend") or {}).get("service") or {}).get("name", ""))
            yield name.removeprefix(f"{owner.name}-")

"""Ingress: pairs of objects with canary annotations, written one after the other.

    one version    primaries ► their backend        then the canary twins go: no request bounces
    canary         primaries ► serving version      then the twins with their weight

An Ingress has no word of acceptance, so it is confirmed as soon as the API server holds all of them and they agree; controllers
follow within a second, and no pod of the old revision goes before the drain, which is never shorter than that.
"""

from collections.abc import Iterable, Mapping, Sequence

from lora_operator.api.deployment import IngressTraffic
from lora_operator.api.kinds import INGRESS
from lora_operator.api.reasons import Reason
from lora_operator.core.build.ingress import CANARY_WEIGHT, build_ingresses, ingress_names
from lora_operator.core.build.owner import Owner, is_owned
from lora_operator.core.build.revision import Revision
from lora_operator.core.plan import Effect
from lora_operator.core.rollout.children import apply_if_differs, delete_object
from lora_operator.core.rollout.pods import Pod
from lora_operator.core.rollout.router import RouteState, Verdict
from lora_operator.kube.client import Json, Kube

__all__ = ["IngressRouter"]

TOTAL = 100
TWIN = "-canary"


class IngressRouter:
    """Router of `traffic.ingress`."""

    kind = INGRESS

    def __init__(self, traffic: IngressTraffic) -> None:
        self._traffic = traffic

    def names(self, owner: Owner) -> tuple[str, ...]:
        """Of all objects that may make up the route."""
        return ingress_names(owner)

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
        return RouteState(
            kind=INGRESS,
            live=main,
            owned=not foreign,
            weights={} if foreign else _agreed(found, owner=owner),
            accepted=True,
            reason=Reason.STABLE,
            message="",
            endpoints=self._endpoints(main),
            others=tuple(obj for obj in objects if obj is not main),
            named=frozenset().union(*(self.named_by(obj, owner=owner, pods=pods) for obj in objects)),
        )

    def write(
        self, owner: Owner, *, route: RouteState | None, revision: Revision | None, weights: Mapping[str, int]
    ) -> tuple[Effect, ...]:
        """What differs, primaries first; then what is not wanted any more."""
        if route is not None and not route.owned:
            return ()
        live = {} if route is None else {str(obj["metadata"]["name"]): obj for obj in route.objects}
        if weights and revision is None:
            return ()
        wanted: dict[str, Mapping[str, object]] = {}
        if weights and revision is not None:
            built = build_ingresses(owner, self._traffic, routes=revision.routes, weights=weights)
            wanted = {manifest["metadata"]["name"]: manifest for manifest in built}
        effects: list[Effect] = []
        for name, manifest in wanted.items():
            effects += apply_if_differs(INGRESS, live=live.get(name), wanted=manifest)
        effects += [delete_object(INGRESS, live[name]) for name in sorted(live) if name not in wanted]
        return tuple(effects)

    def verify(self, *, route: RouteState | None, weights: Mapping[str, int]) -> Verdict:
        """Whether all pairs say it."""
        if not weights:
            gone = route is None or not route.owned
            return Verdict(confirmed=gone, message="" if gone else "the Ingresses are being removed")
        if route is None or route.weights != weights:
            return Verdict(confirmed=False, reason=Reason.PROMOTING, message="the Ingresses are being written")
        return Verdict(confirmed=True, written=True)

    def _endpoints(self, main: Json) -> tuple[str, ...]:
        """The declared host, or where the controller says that it listens."""
        addresses = ((main.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        hosts = [self._traffic.host] if self._traffic.host else [a.get("hostname") or a.get("ip") for a in addresses]
        prefix = self._traffic.path.rstrip("/")
        return tuple(f"http://{host}{prefix}/v1/chat/completions" for host in hosts if host)


def _agreed(found: Mapping[str, Json], *, owner: Owner) -> Mapping[str, int]:
    """Shares by revision as every pair says them; empty when they disagree."""
    primaries = [name for name in found if not name.endswith(TWIN)]
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


def _revisions(ingress: Json, *, owner: Owner) -> Iterable[str]:
    for rule in ingress["spec"].get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            name = str(((path.get("backend") or {}).get("service") or {}).get("name", ""))
            yield name.removeprefix(f"{owner.name}-")

"""Plain Service: the selector of Service `<name>` is the switch. No rewrites.

    one version      selector: deployment + revision
    canary           stable pods labelled in-service ► selector: deployment + in-service ► candidate pods labelled ► as many
                     stable pods as the share asks for let go ► … ► selector: deployment + revision again ► labels removed

Only during a canary a pod has to be labelled to get requests; before and after, a stopped operator holds back no pod.
Confirmed as soon as the API server holds selector and labels: kube-proxy follows within a second, and no pod of the old
revision goes before the drain, which is never shorter than that.
"""

from collections.abc import Iterable, Mapping, Sequence

from lora_operator.api.kinds import POD, SERVICE
from lora_operator.api.names import LABEL_IN_SERVICE, LABEL_REVISION
from lora_operator.api.reasons import Reason
from lora_operator.core.build.forced import Forced
from lora_operator.core.build.owner import Owner, is_owned
from lora_operator.core.build.revision import Revision
from lora_operator.core.build.service import build_public_service, build_shared_service
from lora_operator.core.plan import Effect, Label
from lora_operator.core.rollout.children import apply_if_differs, delete_object
from lora_operator.core.rollout.pods import Pod
from lora_operator.core.rollout.router import RouteState, Verdict
from lora_operator.core.rollout.share import InService, in_service
from lora_operator.kube.client import Json, Kube

__all__ = ["ServiceRouter"]

TOTAL = 100


class ServiceRouter:
    """Router of `traffic.service`. `replicas`: pods that serve, by which a share becomes a number of pods."""

    kind = SERVICE

    def __init__(self, *, replicas: int) -> None:
        self._replicas = replicas

    def names(self, owner: Owner) -> tuple[str, ...]:
        """One Service."""
        return (owner.name,)

    def named_by(
        self,
        live: Json,
        *,
        owner: Owner,  # noqa: ARG002 (its selector names revisions, not objects)
        pods: Sequence[Pod],
    ) -> frozenset[str]:
        """The revision of the selector; of a shared one those of all pods in service, ready or not."""
        selector = _selector(live)
        if LABEL_REVISION in selector:
            return frozenset({selector[LABEL_REVISION]})
        in_it = (pod.revision for pod in pods if pod.in_service)
        return frozenset(in_it if LABEL_IN_SERVICE in selector else ())

    async def read(
        self, kube: Kube, *, owner: Owner, cached: Mapping[str, Json], fresh: bool, pods: Sequence[Pod] = ()
    ) -> RouteState | None:
        """The Service as it is, and who is in it."""
        known = cached.get(owner.name)
        live = await kube.get(SERVICE, namespace=owner.namespace, name=owner.name) if fresh or not known else known
        if live is None:
            return None
        return RouteState(
            kind=SERVICE,
            live=live,
            owned=is_owned(live, uid=owner.uid),
            weights=_shares(live, pods),
            accepted=True,
            reason=Reason.STABLE,
            message="",
            endpoints=(f"http://{owner.name}.{owner.namespace}.svc/v1/chat/completions",),
            pods=tuple(pods),
            named=self.named_by(live, owner=owner, pods=pods),
        )

    def write(
        self,
        owner: Owner,
        *,
        route: RouteState | None,
        revision: Revision | None,  # noqa: ARG002 (a Service rewrites nothing)
        weights: Mapping[str, int],
        forced: Forced | None = None,  # noqa: ARG002 (nor does it look at a request)
    ) -> tuple[Effect, ...]:
        """Selector and labels, one part after the other; or the deletion of the Service."""
        if route is not None and not route.owned:
            return ()
        if not weights:
            return () if route is None else (delete_object(SERVICE, route.live),)
        if route is not None and len(weights) > 1:
            return self._shared(owner, route=route, weights=weights)
        alone = next(iter(weights))
        wanted = build_public_service(owner, revision=alone)
        switched = apply_if_differs(SERVICE, live=None if route is None else route.live, wanted=wanted)
        if switched or route is None:
            return switched
        return tuple(_label(owner, pod, value=None) for pod in route.pods if pod.in_service and not pod.leaving)

    def _shared(self, owner: Owner, *, route: RouteState, weights: Mapping[str, int]) -> tuple[Effect, ...]:
        stable, candidate = weights
        wanted = in_service(replicas=self._replicas, weight=weights[candidate])
        old, new = _serving(route, stable), _serving(route, candidate)
        switched = apply_if_differs(SERVICE, live=route.live, wanted=build_shared_service(owner))
        if switched:  # nobody loses requests by the switch, and nobody wins any
            joins = [_label(owner, pod, value="true") for pod in old if not pod.in_service]
            leaves = [_label(owner, pod, value=None) for pod in new if pod.in_service]
            return (*joins, *leaves) or switched
        stays = wanted.stable + max(0, wanted.candidate - len(new))  # a lost candidate pod costs no capacity
        joins = [*_joins(owner, new, count=wanted.candidate), *_joins(owner, old, count=stays)]
        leaves = [*_leaves(owner, new, count=wanted.candidate), *_leaves(owner, old, count=stays)]
        return tuple(joins or leaves)

    def verify(
        self,
        owner: Owner,  # noqa: ARG002 (pods say which version they are of)
        *,
        route: RouteState | None,
        weights: Mapping[str, int],
        forced: Forced | None = None,
    ) -> Verdict:
        """Whether selector and labels say it."""
        if not weights:
            gone = route is None or not route.owned
            return Verdict(confirmed=gone, message="" if gone else "the Service is being removed")
        if forced is not None:
            message = "a plain Service cannot tell requests apart by header or cookie"
            return Verdict(confirmed=False, reason=Reason.INVALID, message=message)
        if route is None or not self._says(route, weights):
            return Verdict(confirmed=False, reason=Reason.PROMOTING, message="the Service is being written")
        return Verdict(confirmed=True, written=True)

    def _says(self, route: RouteState, weights: Mapping[str, int]) -> bool:
        selected = _selector(route.live).get(LABEL_REVISION)
        if len(weights) == 1:
            return selected in weights
        stable, candidate = weights
        wanted = in_service(replicas=self._replicas, weight=weights[candidate])
        old, new = _serving(route, stable), _serving(route, candidate)
        seen = InService(stable=_count(old), candidate=_count(new))
        return selected is None and seen == InService(min(wanted.stable, len(old)), wanted.candidate)


def _selector(live: Json | Mapping[str, object]) -> Mapping[str, str]:
    spec = live["spec"]
    found = spec.get("selector") if isinstance(spec, Mapping) else None
    return found or {}


def _serving(route: RouteState, revision: str) -> list[Pod]:
    """Ready pods of a version, those in service first, so that labels stay where they are."""
    pods = [pod for pod in route.pods if pod.revision == revision and pod.ready]
    return sorted(pods, key=lambda pod: (not pod.in_service, pod.name))


def _count(pods: Iterable[Pod]) -> int:
    return sum(pod.in_service for pod in pods)


def _joins(owner: Owner, pods: Sequence[Pod], *, count: int) -> list[Label]:
    return [_label(owner, pod, value="true") for pod in pods[:count] if not pod.in_service]


def _leaves(owner: Owner, pods: Sequence[Pod], *, count: int) -> list[Label]:
    return [_label(owner, pod, value=None) for pod in pods[count:] if pod.in_service]


def _label(owner: Owner, pod: Pod, *, value: str | None) -> Label:
    return Label(kind=POD, namespace=owner.namespace, name=pod.name, uid=pod.uid, labels={LABEL_IN_SERVICE: value})


def _shares(live: Json, pods: Sequence[Pod]) -> Mapping[str, int]:
    """Percent of requests by revision: every ready pod that the selector names gets the same."""
    selector = _selector(live)
    if LABEL_REVISION in selector:
        return {selector[LABEL_REVISION]: TOTAL}
    if LABEL_IN_SERVICE not in selector:
        return {}
    counts: dict[str, int] = {}
    for pod in pods:
        if pod.ready and pod.in_service:
            counts[pod.revision] = counts.get(pod.revision, 0) + 1
    return _percent(counts)


def _percent(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Whole percents that sum to 100: the largest remainders are rounded up."""
    total = sum(counts.values())
    shares = {name: TOTAL * count // total for name, count in sorted(counts.items())}
    remainders = sorted(counts, key=lambda name: (-(TOTAL * counts[name] % total), name))
    for name in remainders[: TOTAL - sum(shares.values())]:
        shares[name] += 1
    return shares

"""Plain Service: the selector of Service `<name>` is the switch. No rewrites, one revision at a time.

Confirmed as soon as the API server holds the selector: kube-proxy follows within a second, and no pod of the old revision
goes before the drain, which is never shorter than that.
"""

from collections.abc import Mapping

from lora_operator.api.kinds import SERVICE
from lora_operator.api.names import LABEL_REVISION
from lora_operator.api.reasons import Reason
from lora_operator.core.build.owner import Owner, is_owned
from lora_operator.core.build.revision import Revision
from lora_operator.core.build.service import build_public_service
from lora_operator.core.plan import Effect
from lora_operator.core.rollout.children import apply_if_differs, delete_object
from lora_operator.core.rollout.router import RouteState, Verdict
from lora_operator.kube.client import Json, Kube

__all__ = ["ServiceRouter"]

TOTAL = 100


class ServiceRouter:
    """Router of `traffic.service`."""

    kind = SERVICE

    async def read(self, kube: Kube, *, owner: Owner, cached: Json | None, fresh: bool) -> RouteState | None:
        """The Service as it is."""
        live = await kube.get(SERVICE, namespace=owner.namespace, name=owner.name) if fresh or not cached else cached
        if live is None:
            return None
        revision = (live["spec"].get("selector") or {}).get(LABEL_REVISION)
        return RouteState(
            kind=SERVICE,
            live=live,
            owned=is_owned(live, uid=owner.uid),
            weights={revision: TOTAL} if revision else {},
            accepted=True,
            reason=Reason.STABLE,
            message="",
            endpoints=(f"http://{owner.name}.{owner.namespace}.svc/v1/chat/completions",),
        )

    def write(
        self,
        owner: Owner,
        *,
        route: RouteState | None,
        revision: Revision | None,  # noqa: ARG002 (a Service rewrites nothing)
        weights: Mapping[str, int],
    ) -> tuple[Effect, ...]:
        """The selector, or the deletion of the Service."""
        if route is not None and not route.owned:
            return ()
        if not weights:
            return () if route is None else (delete_object(SERVICE, route.live),)
        wanted = build_public_service(owner, revision=max(weights, key=lambda name: weights[name]))
        return apply_if_differs(SERVICE, live=None if route is None else route.live, wanted=wanted)

    def verify(self, *, route: RouteState | None, weights: Mapping[str, int]) -> Verdict:
        """Whether the selector says it."""
        if not weights:
            gone = route is None or not route.owned
            return Verdict(confirmed=gone, message="" if gone else "the Service is being removed")
        if route is None or route.weights != weights:
            return Verdict(confirmed=False, reason=Reason.PROMOTING, message="the Service is being written")
        return Verdict(confirmed=True)

"""What the declared traffic cannot bring to its pods, in words: weights of a plain Service, rewrites of an Ingress.

Asked before a rollout starts, and again wherever a weight is held or a route is written: replicas, steps and traffic may be
edited at any time.
"""

from lora_operator.api.deployment import Deployment, IngressTraffic, ServiceTraffic
from lora_operator.api.strategy import StrategyType
from lora_operator.core.build.ingress import COOKIE_VALUE, not_routable
from lora_operator.core.build.revision import Revision
from lora_operator.core.rollout.share import nearest_share, reachable

__all__ = ["unroutable", "unshowable_step", "unshowable_weight", "untestable"]


def unroutable(spec: Deployment, revision: Revision) -> str:
    """Why no Ingress of ours can serve the revision's paths; empty where it can, or none is asked for."""
    path = not_routable(revision.routes) if isinstance(spec.traffic, IngressTraffic) else ""
    if not path:
        return ""
    return (
        f"spec.traffic.ingress: found profile {revision.profile}, which rewrites {path}; expected a profile that rewrites "
        "/api/v1/inference and /api/v1/health alone, because an Ingress has one rewrite; use a gateway"
    )


def untestable(spec: Deployment) -> str:
    """Why the declared traffic cannot bring an A/B test's requests to its versions; empty where it can, or none is asked for."""
    test = spec.strategy.ab_test
    if spec.strategy.type is not StrategyType.AB_TEST or test is None:
        return ""
    if isinstance(spec.traffic, ServiceTraffic):
        return (
            "spec.strategy.type: found ABTest with spec.traffic.service, expected a gateway or an ingress, because a plain "
            "Service neither keeps a split nor looks at a request; use one of them, or strategy Canary"
        )
    match = test.match
    by_cookie = isinstance(spec.traffic, IngressTraffic) and match is not None and match.kind == "cookie"
    if by_cookie and match is not None and match.value != COOKIE_VALUE:
        return (
            f"spec.strategy.abTest.match.cookie.value: found {match.value!r}, expected {COOKIE_VALUE!r}, the only value by which "
            "canary annotations send a request to the candidate; set it, match a header, or use a gateway"
        )
    return ""


def unshowable_step(spec: Deployment, *, index: int) -> str:
    """Why the plain Service, which shares requests by numbers of pods, cannot show the weight of a step; empty where it can."""
    steps = spec.strategy.steps if spec.strategy.type is StrategyType.CANARY else ()
    weight = steps[index].weight if index < len(steps) else None
    if weight is None or _shows(spec, weight=weight):
        return ""
    nearest = nearest_share(replicas=spec.replicas, weight=weight)
    return (
        f"spec.strategy.canary.steps[{index}].setWeight: found {weight}, expected a weight within 5 points of what "
        f"{spec.replicas} replicas can show through a plain Service (nearest: {nearest}); "
        "take that weight, more replicas, or a gateway"
    )


def unshowable_weight(spec: Deployment, *, weight: int) -> str:
    """Why it cannot show a weight that is held: its replicas or its traffic were edited since."""
    if _shows(spec, weight=weight):
        return ""
    nearest = nearest_share(replicas=spec.replicas, weight=weight)
    return (
        f"spec.replicas: found {spec.replicas}, expected a number that shows weight {weight} within 5 points through a plain "
        f"Service (nearest: {nearest}); declare more replicas, or a gateway"
    )


def _shows(spec: Deployment, *, weight: int) -> bool:
    return not isinstance(spec.traffic, ServiceTraffic) or reachable(replicas=spec.replicas, weight=weight)

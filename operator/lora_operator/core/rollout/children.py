"""Effects that bring a revision's objects to what they should be, and those that take them away.

Safe to ask for at any time: an object that already says it costs no write.
"""

from collections.abc import Mapping
from typing import Any

from lora_operator.api.kinds import CONTROLLER_REVISION, DEPLOYMENT, DISRUPTION_BUDGET, SERVICE, Kind
from lora_operator.core.build.budget import build_disruption_budget
from lora_operator.core.build.compare import says_all_of
from lora_operator.core.build.deployment import build_deployment
from lora_operator.core.build.revision import Revision, build_controller_revision
from lora_operator.core.build.service import build_revision_service
from lora_operator.core.plan import Apply, Create, Delete, Effect
from lora_operator.core.rollout.observed import Observed

__all__ = ["apply_if_differs", "delete_object", "keep_revision", "remove_revision", "scale_to_zero"]


def keep_revision(observed: Observed, revision: Revision, *, replicas: int) -> tuple[Effect, ...]:
    """ControllerRevision, Service, Deployment and disruption budget of a revision, in the order in which they need each other."""
    live, owner = observed.workload(revision.revision), observed.owner
    effects: list[Effect] = []
    if live.record is None:
        effects.append(Create(kind=CONTROLLER_REVISION, manifest=build_controller_revision(owner, revision)))
    effects += apply_if_differs(
        SERVICE, live=live.service, wanted=build_revision_service(owner, revision=revision.revision)
    )
    effects += apply_if_differs(
        DEPLOYMENT, live=live.deployment, wanted=build_deployment(owner, revision, replicas=replicas)
    )
    if replicas > 1:
        wanted = build_disruption_budget(owner, revision=revision.revision)
        effects += apply_if_differs(DISRUPTION_BUDGET, live=live.budget, wanted=wanted)
    elif live.budget is not None:
        effects.append(delete_object(DISRUPTION_BUDGET, live.budget))
    return tuple(effects)


def scale_to_zero(observed: Observed, revision: str) -> tuple[Effect, ...]:
    """No pods of a revision that serves no more; its Deployment stays for as long as history keeps it."""
    live, record = observed.workload(revision), observed.records.get(revision)
    if live.deployment is None:
        return ()
    if record is None:
        return (delete_object(DEPLOYMENT, live.deployment),)
    effects: list[Effect] = []
    if live.budget is not None:
        effects.append(delete_object(DISRUPTION_BUDGET, live.budget))
    if live.replicas > 0:
        manifest = build_deployment(observed.owner, record, replicas=0)
        effects.append(Apply(kind=DEPLOYMENT, manifest=manifest, owned=True))
    return tuple(effects)


def remove_revision(observed: Observed, revision: str) -> tuple[Effect, ...]:
    """Everything of a revision, its record last: a crash in between leaves something that is found again."""
    live = observed.workload(revision)
    objects = (
        (DEPLOYMENT, live.deployment),
        (SERVICE, live.service),
        (DISRUPTION_BUDGET, live.budget),
        (CONTROLLER_REVISION, live.record),
    )
    return tuple(delete_object(kind, found) for kind, found in objects if found is not None)


def apply_if_differs(kind: Kind, *, live: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> tuple[Effect, ...]:
    """One Apply, or nothing when the live object says all of it. `live` is ours or None."""
    if live is not None and says_all_of(live, wanted):
        return ()
    return (Apply(kind=kind, manifest=wanted, owned=live is not None),)


def delete_object(kind: Kind, live: Mapping[str, Any]) -> Delete:
    """DELETE of exactly this object, not of a later namesake."""
    meta = live["metadata"]
    return Delete(kind=kind, namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])

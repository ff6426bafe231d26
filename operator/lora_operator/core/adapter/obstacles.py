"""What keeps an adapter from being worked on at all: told in words, and left once it is gone."""

from datetime import timedelta

from lora_operator.api.kinds import JOB
from lora_operator.api.reasons import Reason
from lora_operator.core.adapter.draft import Draft
from lora_operator.core.adapter.observed import Observed
from lora_operator.core.adapter.supported import first_unsupported
from lora_operator.core.plan import Delete

__all__ = ["claims", "foreign", "suspended", "unsupported"]

CLAIM_WAIT_SECONDS = 10


def suspended(observed: Observed, draft: Draft) -> bool:
    if not observed.adapter.suspend:
        return False
    for view in observed.jobs.values():
        if not view.finished:
            draft.effects.append(Delete(JOB, observed.adapter.namespace, view.name, view.uid))
    draft.not_ready("Suspended", Reason.SUSPENDED, "spec.suspend is true; set it to false to go on", stalled=False)
    draft.set("Reconciling", "False", Reason.SUSPENDED)
    return True


def unsupported(observed: Observed, draft: Draft) -> bool:
    problem = first_unsupported(observed.adapter)
    if problem is None:
        return False
    draft.not_ready("Failed", problem.reason, str(problem), stalled=True)
    return True


def foreign(observed: Observed, draft: Draft) -> bool:
    names = {record.get("name") for record in draft.status["jobs"].values()} & observed.foreign
    if not names:
        return False
    message = (
        f"the Job {min(map(str, names))} exists and belongs to somebody else; delete it or rename this LoRAAdapter"
    )
    draft.not_ready("Pending", Reason.NAME_TAKEN, message, stalled=True)
    return True


def claims(observed: Observed, draft: Draft) -> bool:
    missing = sorted(name for name, claim in observed.claims.items() if claim is None)
    if missing:
        message = f"PersistentVolumeClaim {missing[0]} is not in namespace {observed.adapter.namespace}; create it or correct claimName"
        draft.not_ready("Pending", Reason.CLAIM_NOT_FOUND, message, stalled=False)
        draft.set("SourceResolved", "False", Reason.CLAIM_NOT_FOUND, message)
        draft.requeue_at = draft.now + timedelta(seconds=CLAIM_WAIT_SECONDS)  # claims are not watched
        return True
    single = sorted(
        name for name, claim in observed.claims.items() if claim and "ReadWriteOncePod" in claim.access_modes
    )
    if single:
        message = f"claim {single[0]} is ReadWriteOncePod, so Jobs and serving pods cannot share it; use ReadWriteMany or ReadWriteOnce"
        draft.not_ready("Failed", Reason.VOLUME_NOT_SHAREABLE, message, stalled=True)
        return True
    return False

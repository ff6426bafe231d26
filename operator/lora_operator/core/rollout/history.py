"""Finished rollouts in `status.history`, newest first, at most `rollback.historyLimit`."""

from dataclasses import replace

from lora_operator.core.rollout.move import Situation
from lora_operator.core.rollout.status import Downtime, HistoryEntry, RolloutStatus, Version

__all__ = ["close_downtime", "with_history"]


def with_history(s: Situation, status: RolloutStatus, *, version: Version, result: str, reason: str) -> RolloutStatus:
    """The status with one more entry in front."""
    owner = s.observed.owner
    entry = HistoryEntry(
        deployment_id=f"{owner.namespace}/{owner.name}/{version.revision}",
        revision=version.revision,
        adapter=version.adapter,
        strategy=str(s.spec.strategy.type),
        started_at=s.now if status.step is None else status.step.started_at,
        completed_at=s.now,
        result=result,
        reason=reason,
    )
    return replace(status, history=(entry, *status.history)[: s.spec.history_limit])


def close_downtime(s: Situation, downtime: Downtime) -> Downtime:
    """A declared downtime that is over, in whole seconds."""
    if downtime.since is None:
        return downtime
    return Downtime(seconds=int((s.now - downtime.since).total_seconds()))

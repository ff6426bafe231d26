"""What follows from a comparison: a worse candidate is given up, a split that is not as declared pauses, and an analysis whose time is
over goes on, waits or ends as `onInsufficientData` says.

    Degraded            Aborting (AnalysisFailed), paused or not; without rollback.automatic Paused
    split differs       Paused (SampleRatioMismatch), until a person says that it is fine
    too little data     Wait: goes on collecting · Pause: Paused (InsufficientData), goes on by itself with enough · Promote: goes on
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from lora_operator.api.analysis import OnInsufficientData
from lora_operator.api.reasons import Reason
from lora_operator.core.analysis.verdict import Verdict
from lora_operator.core.rollout.abort import begin_abort
from lora_operator.core.rollout.comparing import compares, interval_of, passes, rules_of, stage_of
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.pausing import may_pause, pause
from lora_operator.core.rollout.status import Phase

__all__ = ["accept_split", "after_analysis", "judgement"]


def judgement(s: Situation) -> Move | None:
    """Acts on the verdict; None where it asks for nothing."""
    analysis = s.status.analysis
    if analysis is None or not compares(s.observed, s.status):
        return None
    if analysis.verdict is Verdict.DEGRADED:
        return _worse(s, message=analysis.message)
    if not analysis.mismatch or analysis.accepted == stage_of(s.status) or s.status.phase is Phase.PAUSED:
        return None
    if not may_pause(s):
        return None
    held = pause(s, reason=Reason.SAMPLE_RATIO_MISMATCH)
    return replace(held, message=f"{analysis.mismatch}; {held.message}", warning=True)


def _worse(s: Situation, *, message: str) -> Move | None:
    analysis, step = s.status.analysis, s.status.step
    if s.spec.rollback_automatic:
        evidence = {} if analysis is None else analysis.evidence
        return begin_abort(s, reason=Reason.ANALYSIS_FAILED, message=message, evidence=evidence)
    decided = step is not None and step.index is not None and step.index == step.of  # a person asked for everything
    if decided or s.status.phase is Phase.PAUSED or not may_pause(s):
        return None
    held = pause(s, reason=Reason.ANALYSIS_FAILED)
    return replace(held, message=f"{message}; {held.message}", warning=True, stalled=True)


def accept_split(s: Situation) -> Situation:
    """A person said that the split is fine for this stage."""
    analysis = s.status.analysis
    if analysis is None:
        return s
    return replace(s, status=replace(s.status, analysis=replace(analysis, accepted=stage_of(s.status))))


def after_analysis(
    s: Situation, *, until: datetime, waiting: Callable[[Reason, str], Move], go_on: Callable[[Situation], Move]
) -> Move:
    """The time of an analysis is over. `until`: when data is waited for no longer; `waiting`: holds everything as it is."""
    if passes(s.observed, s.status, now=s.now):
        return go_on(s)
    policy = s.spec.analysis.on_insufficient_data
    if s.now >= until and policy is OnInsufficientData.PROMOTE:
        return go_on(s)
    if s.now >= until and policy is OnInsufficientData.PAUSE:
        held = pause(s, reason=Reason.INSUFFICIENT_DATA)
        return replace(held, message=f"{_lacks(s)}; {held.message}", warning=True)
    reason = Reason.INSUFFICIENT_DATA if _has_source(s) else Reason.NO_METRICS_SOURCE
    later = s.after(interval_of(s.observed))
    return replace(waiting(reason, _lacks(s)), requeue_at=min(until, later) if s.now < until else later)


def _lacks(s: Situation) -> str:
    if not _has_source(s):
        return (
            "nothing to read metrics from: the runtime's profile has no metricsPath; "
            "set it, or the router's metricsUrl, in the operator's settings, or spec.analysis.source.prometheus"
        )
    return "no figures yet" if s.status.analysis is None else s.status.analysis.message


def _has_source(s: Situation) -> bool:
    """Whether there is anything that could answer."""
    rules = rules_of(s.spec)
    if (rules is not None and rules.prometheus) or s.observed.router_metrics is not None:
        return True
    versions = (version for version in (s.status.stable, s.status.candidate) if version is not None)
    records = (s.observed.records.get(version.revision) for version in versions)
    profiles = (None if record is None else s.observed.settings.profiles.get(record.profile) for record in records)
    return all(profile is not None and profile.metrics_path for profile in profiles)

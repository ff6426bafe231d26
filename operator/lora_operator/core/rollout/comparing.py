"""Candidate and stable are compared while both are on their way: what to read, what it says, what is kept.

    Collect (effect) ─► sample (observed) ─► folded into the sums ─► judged ─► status.analysis
                                                  └► ConfigMap <name>-analysis, one write per scrape

The verdict is part of the status that every rule sees; what follows from it is decided there (judgement.py, canary.py, bluegreen.py).
Sums that could not be stored are read again: counters only grow, so the next window is longer and nothing is lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lora_operator.api.analysis import AnalysisSpec, Builtin, Metric, Variant, filled_in
from lora_operator.api.conditions import timestamp
from lora_operator.api.deployment import Deployment, ServiceTraffic
from lora_operator.api.kinds import CONFIG_MAP
from lora_operator.api.names import revisioned
from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import ABTest, StrategyType
from lora_operator.core.analysis.comparison import Comparison, folded
from lora_operator.core.analysis.router_series import Backend
from lora_operator.core.analysis.stored import comparison_text
from lora_operator.core.analysis.success import success_of
from lora_operator.core.analysis.verdict import Verdict, judged, mismatch_of, stays_fresh
from lora_operator.core.build.comparison import build_comparison, comparison_name
from lora_operator.core.build.owner import is_owned
from lora_operator.core.plan import Apply, Collect, Effect, Note, Query, RouterTarget, Target
from lora_operator.core.rollout.observed import Observed, Standing, Winner
from lora_operator.core.rollout.status import Analysis, Phase, RolloutStatus, Sub, Version

__all__ = [
    "Compared",
    "begun",
    "compared",
    "compares",
    "interval_of",
    "passes",
    "rollout_of",
    "rules_of",
    "stage_of",
    "unknown_metric",
]

_DEFAULT_METRICS = (
    Metric(name="error-rate", builtin=Builtin.ERROR_RATE),
    Metric(name="latency", builtin=Builtin.LATENCY_P95),
)
_STEADY = frozenset({Sub.BAKE, Sub.ANALYSE, Sub.AWAIT_PROMOTE, Sub.TEST})
_GRACE = timedelta(seconds=0.2)  # so that the collector finds its time come


@dataclass(frozen=True)
class Compared:
    """What a decision adds to its plan. `collect` first: nothing may hold it up; `store` last: it may hold up nothing."""

    status: RolloutStatus
    collect: tuple[Effect, ...] = ()
    store: tuple[Effect, ...] = ()
    notes: tuple[Note, ...] = ()
    look_again: datetime | None = None
    test: Standing | None = None  # of a running A/B test


def rules_of(spec: Deployment) -> AnalysisSpec | None:
    """What is compared; None where nothing is asked for, or the strategy never has both versions answer."""
    kind, declared = spec.strategy.type, spec.analysis
    analyses = any(step.analyse_seconds is not None for step in spec.strategy.steps)
    if kind is StrategyType.CANARY and (declared.metrics or analyses):
        return replace(declared, metrics=declared.metrics or _DEFAULT_METRICS)
    if kind is StrategyType.AB_TEST and spec.strategy.ab_test is not None:
        return replace(declared, metrics=(*declared.metrics, *_conditions(spec.strategy.ab_test)))
    return declared if kind is StrategyType.BLUE_GREEN and declared.metrics else None


def _conditions(test: ABTest) -> tuple[Metric, ...]:
    """rollbackConditions, as metrics."""
    found: list[Metric] = []
    if test.max_error_rate is not None:
        found.append(Metric(name="maxErrorRate", builtin=Builtin.ERROR_RATE, max=test.max_error_rate))
    if test.max_performance_degradation is not None:
        ratio = 1 + test.max_performance_degradation
        found.append(Metric(name="maxPerformanceDegradation", builtin=Builtin.LATENCY_P95, max_ratio=ratio))
    return tuple(found)


def _judging(spec: Deployment, rules: AnalysisSpec) -> AnalysisSpec:
    """The rules without a test's success metrics: who wins by them is no failure, and is judged by success.py."""
    test = spec.strategy.ab_test
    names = () if test is None or spec.strategy.type is not StrategyType.AB_TEST else test.success_metrics
    return replace(rules, metrics=tuple(metric for metric in rules.metrics if metric.name not in names))


def _standing(spec: Deployment, known: Comparison | None) -> Standing | None:
    """How the running test stands; None while no success metric was seen."""
    test = spec.strategy.ab_test
    if known is None or test is None or spec.strategy.type is not StrategyType.AB_TEST:
        return None
    if not any(known.metrics[name].gain.count for name in test.success_metrics if name in known.metrics):
        return None
    found = success_of(known, spec=spec.analysis, names=test.success_metrics)
    winners = {Variant.CANDIDATE: Winner.CANDIDATE, Variant.STABLE: Winner.STABLE, None: Winner.OPEN}
    return Standing(winner=winners[found.winner], message=found.message)


def unknown_metric(spec: Deployment) -> str:
    """Which success metric of a test is not defined; empty when all are."""
    test = spec.strategy.ab_test
    if test is None or spec.strategy.type is not StrategyType.AB_TEST:
        return ""
    known = [metric.name for metric in spec.analysis.metrics]
    unknown = next((name for name in test.success_metrics if name not in known), "")
    if not unknown:
        return ""
    return (
        f"spec.strategy.abTest.successMetrics: found {unknown!r}, expected names of entries of spec.analysis.metrics "
        f"({', '.join(known) or 'there are none'})"
    )


def compares(observed: Observed, status: RolloutStatus) -> bool:
    """Whether figures are wanted now. A switch is watched only if it began with that (a way back does not, T17)."""
    spec = observed.spec
    if spec is None or status.stable is None or status.candidate is None or rules_of(spec) is None:
        return False
    phase = status.pause.phase if status.phase is Phase.PAUSED and status.pause is not None else status.phase
    if phase in (Phase.STEPPING, Phase.TESTING):
        return status.phase is not Phase.PAUSED or bool(status.candidate.target_weight)
    return phase is Phase.SWITCHING and status.analysis is not None


def begun(spec: Deployment) -> Analysis | None:
    """The analysis at its beginning; None where nothing is compared."""
    return None if rules_of(spec) is None else Analysis(verdict=Verdict.INSUFFICIENT_DATA, message="nothing read yet")


def interval_of(observed: Observed) -> int:
    """Seconds between two looks."""
    said = None if observed.spec is None else observed.spec.analysis.interval_seconds
    return observed.settings.interval_seconds if said is None else said


def passes(observed: Observed, status: RolloutStatus, *, now: datetime) -> bool:
    """Whether the verdict is Pass, and not one from before the source fell silent or the operator slept."""
    known, interval = observed.comparison, interval_of(observed)
    good = status.analysis is not None and status.analysis.verdict is Verdict.PASS
    return good and known is not None and stays_fresh(known, interval=interval, now=now)


def rollout_of(status: RolloutStatus) -> str:
    """Which rollout this is: a candidate may be tried again, and then nothing of the first attempt counts."""
    if status.candidate is None or status.step is None:
        return ""
    split = f"/{status.step.prefix}" if status.step.forced else ""  # figures of two splits are not one test
    return f"{status.candidate.revision}@{timestamp(status.step.started_at)}{split}"


def stage_of(status: RolloutStatus) -> str:
    """What stands still; empty while traffic moves or its state is not known."""
    step, candidate = status.step, status.candidate
    if step is None or candidate is None or step.sub not in _STEADY or candidate.weight != candidate.target_weight:
        return ""
    return f"{'-' if step.index is None else step.index}/{candidate.weight}"


def compared(observed: Observed, status: RolloutStatus, *, now: datetime) -> Compared:
    """The status with what the newest figures say, and what to read and keep."""
    spec, stable, candidate = observed.spec, status.stable, status.candidate
    if spec is None or stable is None or candidate is None or not compares(observed, status):
        return Compared(status=status)
    rules = rules_of(spec)
    assert rules is not None  # noqa: S101 (compares() says so)
    collect = _collect(observed, status, rules, stable=stable, candidate=candidate)
    reading = Compared(status=status, collect=(collect,), look_again=_next_look(observed, now=now))
    sample = observed.sample
    reading = replace(reading, test=_standing(spec, observed.comparison))
    known = observed.comparison
    if known is None or known.source != collect.source:  # counted by somebody else until now: it begins anew
        known = Comparison(
            stable=stable.revision, candidate=candidate.revision, rollout=rollout_of(status), source=collect.source
        )
    if sample is None or (sample.source, sample.rollout) != (collect.source, rollout_of(status)):
        return reading
    if known.at is not None and sample.at <= known.at:
        return reading
    live = observed.comparison_object
    if live is not None and not is_owned(live, uid=observed.owner.uid):
        return replace(reading, status=_unkept(observed, status))
    share = _share(spec, status) if sample.stage == stage_of(status) else None
    known = folded(known, sample, spec=rules, share=share)
    analysis = _judged(known, rules, status.analysis, observed=observed, share=share, now=now)
    manifest = build_comparison(observed.owner, comparison_text(known))
    return replace(
        reading,
        status=replace(status, analysis=analysis),
        store=(Apply(kind=CONFIG_MAP, manifest=manifest, owned=live is not None),),
        notes=_note(status.analysis, analysis),
        test=_standing(spec, known),
    )


def _judged(
    known: Comparison,
    rules: AnalysisSpec,
    before: Analysis | None,
    *,
    observed: Observed,
    share: float | None,
    now: datetime,
) -> Analysis:
    fresh = stays_fresh(known, interval=interval_of(observed), now=now)
    assert observed.spec is not None  # noqa: S101 (there are rules only with a spec)
    judging = _judging(observed.spec, rules)
    outcome = judged(known, spec=judging, fresh=fresh)
    shown = outcome.metrics if judging == rules else judged(known, spec=rules, fresh=fresh).metrics
    return Analysis(
        verdict=outcome.verdict,
        message=outcome.message,
        mismatch=mismatch_of(known, share=share),
        accepted="" if before is None else before.accepted,
        metrics=shown,
    )


def _unkept(observed: Observed, status: RolloutStatus) -> RolloutStatus:
    """Sums that cannot be kept are no sums: nothing is concluded, and an abort stays possible."""
    name = f"{observed.owner.namespace}/{comparison_name(observed.owner.name)}"
    message = f"ConfigMap {name} exists and is not ours; rename or delete it"
    return replace(status, analysis=Analysis(verdict=Verdict.INSUFFICIENT_DATA, message=message))


def _share(spec: Deployment, status: RolloutStatus) -> float | None:
    """What the candidate should get of all requests; a plain Service shares connections between pods, so nothing exact."""
    test = spec.strategy.ab_test if spec.strategy.type is StrategyType.AB_TEST else None
    assigned = test is not None and test.match is not None  # clients choose; the weights say nothing of how many
    if not stage_of(status) or status.candidate is None or assigned or isinstance(spec.traffic, ServiceTraffic):
        return None
    return status.candidate.weight / 100


def _next_look(observed: Observed, *, now: datetime) -> datetime:
    """Not in the past: a slow source is waited for."""
    last = now if observed.sample is None else observed.sample.at
    return max(last + timedelta(seconds=interval_of(observed)) + _GRACE, now + timedelta(seconds=1))


def _note(before: Analysis | None, after: Analysis) -> tuple[Note, ...]:
    """One Event when the verdict becomes Pass; a bad one has the Event of what follows."""
    passed = after.verdict is Verdict.PASS and (before is None or before.verdict is not Verdict.PASS)
    return (Note(type="Normal", reason=Reason.ANALYSIS_PASSED, message=after.message),) if passed else ()


def _collect(
    observed: Observed, status: RolloutStatus, rules: AnalysisSpec, *, stable: Version, candidate: Version
) -> Collect:
    owner = observed.owner
    names = {Variant.STABLE: stable, Variant.CANDIDATE: candidate}
    queries = tuple(
        Query(
            metric=metric.name,
            variant=variant,
            promql=filled_in(
                metric.query,
                {
                    "variant": str(variant),
                    "namespace": owner.namespace,
                    "service": revisioned(owner.name, revision=version.revision),
                },
            ),
        )
        for metric in rules.metrics
        if metric.query
        for variant, version in names.items()
    )
    return Collect(
        rollout=rollout_of(status),
        stage=stage_of(status),
        interval_seconds=interval_of(observed),
        namespace=owner.namespace,
        targets=tuple(target for version in names.values() for target in _targets(observed, version)),
        prometheus=rules.prometheus,
        queries=queries,
        router=_router(observed, stable=stable, candidate=candidate),
    )


def _router(observed: Observed, *, stable: Version, candidate: Version) -> RouterTarget | None:
    owner, known = observed.owner, observed.router_metrics
    if known is None:
        return None
    serving = Backend(
        namespace=owner.namespace, route=owner.name, service=revisioned(owner.name, revision=stable.revision)
    )
    tried = replace(serving, service=revisioned(owner.name, revision=candidate.revision), twin_of=serving.service)
    backends = {stable.revision: serving, candidate.revision: tried}
    return RouterTarget(addresses=known.addresses, problem=known.problem, backends=backends)


def _targets(observed: Observed, version: Version) -> Iterable[Target]:
    record = observed.records.get(version.revision)
    if record is None:
        return
    profile = observed.settings.profiles.get(record.profile)
    path = "" if profile is None else profile.metrics_path
    for pod in observed.workload(version.revision).pods:
        if pod.ready and pod.ip:
            yield Target(
                pod=pod.name,
                revision=version.revision,
                created=pod.created,
                address=f"http://{pod.ip}:{record.port}{path}" if path else "",
                handlers=tuple(sorted({record.routes[route] for route in _ASKING if route in record.routes})),
            )


_ASKING = ("/v1/chat/completions", "/v1/completions", "/api/v1/inference")

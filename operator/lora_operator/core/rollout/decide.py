"""One step of a LoRADeployment toward its declared state. Pure: same snapshot and time, same plan.

    first version   Pending ─► Preparing ─► Promoting ─► Stable
    Replace         Stable ─► Replacing ─► Promoting ─► Stable
    BlueGreen       Stable ─► Preparing ─► (Paused) ─► Switching ─► Promoting ─► Stable
    Canary          Stable ─► Preparing ─► Stepping ─► (Paused) ─► Promoting ─► Stable
    ABTest          Stable ─► Preparing ─► Testing ─► (Paused) ─► Promoting ─► Stable
    back, warm      Stable ─► Switching ─► Promoting ─► Stable
    any of them     ─► Aborting ─► Aborted (sticky) │ Stable (superseded, or the spec went back)

Order of the rules matters: deletion beats everything, an abort beats a pause, a pause beats a promotion. Rules of the
strategies live in files of their own; each strategy is one more file and one more line in `_advance`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from lora_operator.api.conditions import condition_of
from lora_operator.api.reasons import Reason
from lora_operator.core.plan import Note, Plan, SetFinalizer
from lora_operator.core.rollout.abort import advance_abort, begin_abort
from lora_operator.core.rollout.abtest import advance_test
from lora_operator.core.rollout.approval import pause_or_resume
from lora_operator.core.rollout.bluegreen import advance_switch
from lora_operator.core.rollout.canary import advance_steps
from lora_operator.core.rollout.comparing import Compared, compared
from lora_operator.core.rollout.deletion import delete
from lora_operator.core.rollout.facts import with_conditions, with_facts
from lora_operator.core.rollout.goal import Block, Goal, goal_of
from lora_operator.core.rollout.judgement import judgement
from lora_operator.core.rollout.move import Move, Situation, earliest
from lora_operator.core.rollout.observed import Observed
from lora_operator.core.rollout.pausing import SPEC_PAUSED, pause
from lora_operator.core.rollout.prepare import advance_preparation
from lora_operator.core.rollout.promote import advance_promotion
from lora_operator.core.rollout.replace import advance_replacement
from lora_operator.core.rollout.requests import take_request
from lora_operator.core.rollout.start import begin_rollout
from lora_operator.core.rollout.status import IN_FLIGHT, Phase
from lora_operator.core.rollout.steady import blocked, given_up, steady

__all__ = ["decide", "starting_goal"]

# Phases in which a candidate may have requests.
_WITH_REQUESTS = frozenset({Phase.STEPPING, Phase.TESTING, Phase.SWITCHING, Phase.PROMOTING, Phase.PAUSED})


def decide(observed: Observed, *, now: datetime) -> Plan:
    """The next plan."""
    figures = compared(observed, with_facts(observed, observed.status), now=now)
    observed = replace(observed, test=figures.test)
    s = Situation(observed=observed, status=figures.status, goal=goal_of(observed), now=now)
    for rule in (
        delete,
        _unreadable,
        _adopt,
        _name_taken,
        take_request,
        _abort,
        _refused,
        _superseded,
        _breaker,
        judgement,
        pause_or_resume,
        _advance,
        _start,
    ):
        move = rule(s)
        if move is not None:
            return _plan(s, move, figures)
    return _plan(s, _rest(s), figures)


def starting_goal(observed: Observed, *, now: datetime) -> Goal | None:
    """The goal whose revision the decision will build or start; None when nothing is started.

    Only then GPU supply and the artifact's claim are read: they cost calls, and nothing else depends on them.
    """
    goal = goal_of(observed)
    if isinstance(goal, Block):
        return None
    s = Situation(observed=observed, status=observed.status, goal=goal, now=now)
    candidate = observed.status.candidate
    unstored = candidate is not None and candidate.revision == goal.revision and goal.revision not in observed.records
    return goal if unstored or _may_start(s, goal) else None


def _unreadable(s: Situation) -> Move | None:
    """A spec that says nothing we can act on: children stay untouched."""
    if s.observed.spec is not None or not isinstance(s.goal, Block):
        return None
    phase = s.status.phase if s.status.phase in IN_FLIGHT | {Phase.ABORTING} else Phase.PENDING
    return Move(
        status=replace(s.status, phase=phase), reason=s.goal.reason, message=s.goal.message, stalled=True, warning=True
    )


def _adopt(s: Situation) -> Move | None:
    """The finalizer comes before anything that traffic could reach."""
    if s.observed.has_finalizer or isinstance(s.goal, Block):
        return None
    return Move(
        status=s.status,
        reason=Reason.PENDING,
        message="accepted",
        effects=(SetFinalizer(present=True),),
        requeue_at=s.now,
    )


def _name_taken(s: Situation) -> Move | None:
    """An object that we need belongs to somebody else: it is never adopted, and nothing is half done beside it."""
    route = s.observed.route
    taken = list(s.observed.foreign)
    if route is not None and not route.owned:
        taken.append(f"{route.kind.kind} {s.observed.owner.namespace}/{route.name}")
    if not taken:
        return None
    phase = s.status.phase if s.status.phase in IN_FLIGHT | {Phase.ABORTING} else Phase.PENDING
    message = f"{', '.join(taken)} exists and is not ours; rename or delete it, or rename this resource"
    return Move(
        status=replace(s.status, phase=phase), reason=Reason.NAME_TAKEN, message=message, stalled=True, warning=True
    )


def _refused(s: Situation) -> Move | None:
    """The API server will never take the candidate's objects: a field that is passed through is wrong."""
    refusal = s.observed.refusal
    if refusal is None or refusal.reason is not Reason.INVALID:
        return None
    if s.status.phase not in (Phase.PREPARING, Phase.REPLACING) or s.status.candidate is None:
        return None
    return begin_abort(s, reason=refusal.reason, message=f"the API server refused it: {refusal.message}")


def _abort(s: Situation) -> Move | None:
    return advance_abort(s) if s.status.phase is Phase.ABORTING else None


def _superseded(s: Situation) -> Move | None:
    """The candidate is no longer what should serve. A goal that is not known yet supersedes nothing."""
    candidate = s.status.candidate
    if s.status.phase not in IN_FLIGHT or candidate is None:
        return None
    if isinstance(s.goal, Block) or s.goal.revision == candidate.revision:
        return None
    return begin_abort(s, reason=Reason.SUPERSEDED, message=f"revision {s.goal.revision} is declared now")


def _breaker(s: Situation) -> Move | None:
    """The candidate gets requests and has no pod left, while the old version still serves: back at once, paused or not."""
    candidate, stable = s.status.candidate, s.status.stable
    if s.status.phase not in _WITH_REQUESTS or candidate is None or stable is None:
        return None
    share = max(candidate.weight, candidate.target_weight or 0)
    asked = share > 0 or (s.status.step is not None and s.status.step.forced)
    dead = asked and s.observed.workload(candidate.revision).ready == 0
    if not dead or not s.spec.rollback_automatic or s.observed.workload(stable.revision).ready == 0:
        return None
    message = f"it should answer {share} % of the requests and none of its pods is ready"
    return begin_abort(s, reason=Reason.CAPACITY_LOST, message=message)


_ADVANCES: Mapping[Phase, Callable[[Situation], Move]] = {
    Phase.PREPARING: advance_preparation,
    Phase.REPLACING: advance_replacement,
    Phase.STEPPING: advance_steps,
    Phase.TESTING: advance_test,
    Phase.SWITCHING: advance_switch,
    Phase.PROMOTING: advance_promotion,
}


def _advance(s: Situation) -> Move | None:
    advance = _ADVANCES.get(s.status.phase)
    return None if advance is None else advance(s)


def _may_start(s: Situation, goal: Goal) -> bool:
    """The goal neither serves nor was given up, and nothing is in motion."""
    resting = s.status.phase in (Phase.PENDING, Phase.STABLE, Phase.ABORTED)
    serves = s.status.stable is not None and s.status.stable.revision == goal.revision
    sticky = s.status.abort is not None and s.status.abort.revision == goal.revision
    return resting and not serves and not sticky


def _start(s: Situation) -> Move | None:
    if isinstance(s.goal, Block) or not _may_start(s, s.goal):
        return None
    if s.spec.paused:
        return pause(replace(s, status=replace(s.status, candidate=None, step=None)), reason=SPEC_PAUSED)
    return begin_rollout(s, s.goal)


def _rest(s: Situation) -> Move:
    if isinstance(s.goal, Block):
        return blocked(s, s.goal)
    if s.status.abort is not None and s.status.abort.revision == s.goal.revision:
        return given_up(s)
    return steady(s, s.goal)


def _plan(s: Situation, move: Move, figures: Compared) -> Plan:
    """The move with facts, conditions and the Event that tells of a change."""
    refusal = s.observed.refusal
    if refusal is not None and move.status.phase not in (Phase.ABORTING, Phase.ABORTED):
        move = replace(move, reason=refusal.reason, message=refusal.message, ready=False, warning=True)
    status = with_conditions(with_facts(s.observed, move.status), move, now=s.now)
    before, after = s.observed.status, status.to_json()
    return Plan(
        reason=str(move.reason),
        message=move.message,
        status=None if after == before.to_json() else after,
        effects=(*figures.collect, *move.effects, *figures.store),
        notes=(*figures.notes, *_change_note(s, move), *move.notes),
        requeue_at=earliest(move.requeue_at, figures.look_again),
        detail={"phase": f"{before.phase}→{status.phase}"},
    )


def _change_note(s: Situation, move: Move) -> tuple[Note, ...]:
    """One Event when the phase or the reason of Ready changes; none while a state lasts."""
    ready = condition_of(s.observed.status.conditions, type="Ready") or {}
    if ready.get("reason") == str(move.reason) and s.observed.status.phase is move.status.phase:
        return ()
    return (Note(type="Warning" if move.warning else "Normal", reason=str(move.reason), message=move.message),)

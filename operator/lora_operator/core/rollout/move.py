"""The two types that every rule shares: the situation it looks at, and the move it makes.

A rule takes a Situation and returns a Move or None. A move is the next status and what to do after it was written;
decide.py adds the observed facts and the conditions, so that no rule writes those by hand.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from lora_operator.api.deployment import Deployment
from lora_operator.api.reasons import Reason
from lora_operator.core.plan import Effect, Note
from lora_operator.core.rollout.goal import Block, Goal
from lora_operator.core.rollout.observed import Observed
from lora_operator.core.rollout.status import RolloutStatus

__all__ = ["Move", "Situation", "earliest"]

SOON = timedelta(seconds=0.5)


@dataclass(frozen=True)
class Situation:
    """What a rule may look at."""

    observed: Observed
    status: RolloutStatus  # as stored, with the observed facts brought up to date
    goal: Goal | Block
    now: datetime

    @property
    def spec(self) -> Deployment:
        """The parsed spec; rules that come after `unreadable` may rely on it."""
        assert self.observed.spec is not None  # noqa: S101 (the rule order guarantees it)
        return self.observed.spec

    def after(self, seconds: float) -> datetime:
        """That many seconds from now. One is added, because stored times are cut to whole seconds."""
        return self.now + timedelta(seconds=seconds + 1)

    @property
    def soon(self) -> datetime:
        """When to look again at what comes by itself and tells nobody: a controller that is about to serve a route."""
        return self.now + SOON


@dataclass(frozen=True)
class Move:
    """One step: next status, reason in words, effects in order, when to look again."""

    status: RolloutStatus
    reason: Reason | str
    message: str
    effects: tuple[Effect, ...] = ()
    notes: tuple[Note, ...] = ()
    ready: bool = False
    stalled: bool = False
    warning: bool = False  # the Event about it is a Warning
    requeue_at: datetime | None = None


def earliest(*moments: datetime | None) -> datetime | None:
    """The first of the given moments."""
    return min((moment for moment in moments if moment is not None), default=None)

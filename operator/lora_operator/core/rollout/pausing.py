"""`spec.paused`: nothing new starts, a candidate that is being prepared waits; weights are held and re-asserted.

Not paused: a shift that has begun, an abort, and a version that already gave up its GPU (that would only prolong the
downtime). The progress deadline does not run while the pause lasts.
"""

from dataclasses import replace

from lora_operator.api.reasons import Reason
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.status import Pause, Phase, Sub
from lora_operator.core.rollout.upkeep import drain_previous, keep_route, keep_stable

__all__ = ["hold", "pause_or_resume"]

SPEC_PAUSED = "SpecPaused"


def pause_or_resume(s: Situation) -> Move | None:
    """Enters, keeps or ends the pause of a rollout that has a candidate; None when there is nothing to pause."""
    if s.status.phase is Phase.PAUSED:
        return hold(s) if s.spec.paused else _resume(s)
    step = s.status.step
    preparing = s.status.phase in (Phase.PREPARING, Phase.REPLACING) and step is not None and step.sub is Sub.VERIFY
    return hold(s) if s.spec.paused and preparing else None


def hold(s: Situation) -> Move:
    """Everything stays as it is."""
    pause = s.status.pause or Pause(reason=SPEC_PAUSED, since=s.now)
    status = replace(s.status, phase=Phase.PAUSED, pause=pause)
    drain = drain_previous(s, status)
    return Move(
        status=drain.status,
        reason=Reason.PAUSED,
        message="spec.paused is true; set it to false to go on",
        effects=(*keep_stable(s, status), *keep_route(s, status), *drain.effects),
        requeue_at=drain.look_again,
    )


def _resume(s: Situation) -> Move:
    status, step = replace(s.status, pause=None), s.status.step
    if status.candidate is None or step is None:
        phase = Phase.PENDING
    else:
        phase = Phase.PREPARING if status.stable is None else Phase.REPLACING
        held = s.now - (s.status.pause.since if s.status.pause else s.now)
        step = replace(step, deadline=None if step.deadline is None else step.deadline + held)
    return Move(
        status=replace(status, phase=phase, step=step),
        reason=Reason.PENDING,
        message="spec.paused is false again",
        requeue_at=s.now,
    )

"""Traffic shares as a pure function of status, and nothing else: no label, port, match or live object moves a request.

stable alone          {stable: 100}
candidate promoted    {candidate: 100}      (status.candidate.targetWeight, written before the route)
nothing serves        {}                    no route at all
"""

from collections.abc import Mapping

from lora_operator.api.strategy import Strategy
from lora_operator.core.build.forced import Forced
from lora_operator.core.rollout.status import Phase, RolloutStatus

__all__ = ["TOTAL", "forced_of", "weights_of"]

TOTAL = 100


def weights_of(status: RolloutStatus) -> Mapping[str, int]:
    """Share of each revision, stable first; the shares sum to 100 or there are none."""
    if status.phase is Phase.DELETING:
        return {}
    moved = 0
    if status.candidate is not None:
        moved = status.candidate.target_weight or 0
    shares: dict[str, int] = {}
    if status.stable is not None:
        shares[status.stable.revision] = TOTAL - moved
    if status.candidate is not None:
        shares[status.candidate.revision] = moved
    return {revision: share for revision, share in shares.items() if share > 0}


def forced_of(status: RolloutStatus, strategy: Strategy) -> Forced | None:
    """Requests that reach the candidate whatever the weights: whether there are any is status alone, which ones the spec says."""
    if status.step is None or not status.step.forced or status.candidate is None or status.phase is Phase.DELETING:
        return None
    match = None if strategy.ab_test is None else strategy.ab_test.match
    return None if match is None else Forced(revision=status.candidate.revision, match=match)

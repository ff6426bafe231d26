"""Traffic shares as a pure function of status, and nothing else: no label, port, match or live object moves a request.

stable alone          {stable: 100}
candidate promoted    {candidate: 100}      (status.candidate.targetWeight, written before the route)
nothing serves        {}                    no route at all
"""

from collections.abc import Mapping

from lora_operator.core.rollout.status import Phase, RolloutStatus

__all__ = ["TOTAL", "weights_of"]

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

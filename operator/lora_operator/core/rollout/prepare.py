"""Preparing: the candidate starts beside the old version and is proven; what comes then is the strategy's.

proven ─► first version, Replace: Promoting │ BlueGreen: a delay or an approval, then Switching │ Canary: Stepping │ ABTest: Testing
"""

from lora_operator.api.reasons import Reason
from lora_operator.api.strategy import StrategyType
from lora_operator.core.rollout.abtest import begin_test
from lora_operator.core.rollout.bluegreen import advance_delay, begin_delay, delays
from lora_operator.core.rollout.canary import begin_steps
from lora_operator.core.rollout.candidate import Proof, examine, until_proven
from lora_operator.core.rollout.move import Move, Situation
from lora_operator.core.rollout.promote import begin_promotion
from lora_operator.core.rollout.status import Sub

__all__ = ["advance_preparation"]


def advance_preparation(s: Situation) -> Move:
    """One step of Preparing."""
    proof = examine(s)
    if isinstance(proof, Move):
        return proof
    if proof.step.sub is Sub.DELAY and delays(s):
        return advance_delay(s, proof)
    return until_proven(s, proof, reason=Reason.PREPARING) or _proven(s, proof)


def _proven(s: Situation, proof: Proof) -> Move:
    """The strategy is asked only now, so that it may still be edited while the candidate starts."""
    if s.status.stable is None:
        return begin_promotion(s, proof.revision)
    match s.spec.strategy.type:
        case StrategyType.BLUE_GREEN:
            return begin_delay(s, proof)
        case StrategyType.CANARY:
            return begin_steps(s)
        case StrategyType.AB_TEST:
            return begin_test(s)
        case _:
            return begin_promotion(s, proof.revision)

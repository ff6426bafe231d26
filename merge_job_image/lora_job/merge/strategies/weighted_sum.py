"""linear and task_arithmetic: W + Σ cᵢ·δᵢ. The coefficients are all there is to them; the engine adds the sum in one product."""

import math

from lora_job.merge.recipe import Recipe, Strategy
from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["normalised"]

SMALLEST_SUM = 1e-6


def normalised(recipe: Recipe) -> tuple[float, ...]:
    """The weights as the strategy uses them: linear divides several by their sum, everything else takes them as given.

    The sum is over all adapters, so that a module which one of them lacks is a mean with a delta of 0.
    """
    if recipe.strategy is not Strategy.LINEAR or len(recipe.weights) == 1:
        return recipe.weights
    total = math.fsum(recipe.weights)
    if abs(total) < SMALLEST_SUM:
        raise Refused(
            Reason.INVALID_OPTION,
            f"--adapter: the weights {', '.join(f'{weight:g}' for weight in recipe.weights)} sum to {total:g}, "
            "and linear divides by their sum; use task_arithmetic, which does not",
        )
    return tuple(weight / total for weight in recipe.weights)

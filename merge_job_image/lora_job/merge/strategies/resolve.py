"""What a strategy means for one tensor: decided in the plan, from the recipe and from which adapters have a delta there.

one delta, or a strategy that adds   ─► a plain sum: the terms' coefficients say everything
otherwise                            ─► a Combination: the coefficients are the adapters' weights, the rest is done at merge time
"""

from collections.abc import Sequence
from dataclasses import replace

from lora_job.merge.plan import Combination, Term
from lora_job.merge.recipe import Recipe, Strategy
from lora_job.merge.strategies.weighted_sum import normalised

__all__ = ["resolve", "usable_weights"]


def usable_weights(recipe: Recipe) -> tuple[float, ...]:
    """Each adapter's weight; 0 where its delta takes no part in any tensor, so that it needs no term."""
    if recipe.scale == 0.0:
        return (0.0,) * len(recipe.weights)
    weights = normalised(recipe)
    if recipe.strategy is Strategy.SLERP and len(weights) == 2:
        first, second = weights
        return (0.0 if recipe.t == 1.0 else first, 0.0 if recipe.t == 0.0 else second)
    return weights


def resolve(recipe: Recipe, terms: Sequence[Term]) -> tuple[tuple[Term, ...], Combination | None]:
    """The terms with final coefficients, and how they are combined; None means: added."""
    adapters = {term.adapter for term in terms}
    strategy, alone = recipe.strategy, len(adapters) == 1
    if not terms or strategy in {Strategy.LINEAR, Strategy.TASK_ARITHMETIC}:
        return _scaled(terms, recipe.scale), None
    if strategy is Strategy.SLERP:
        if len(recipe.weights) == 1:
            return _scaled(terms, recipe.scale), None
        if alone:
            # The other delta is 0 and has no direction: what is left of the turn is the straight line.
            share = 1.0 - recipe.t if adapters == {0} else recipe.t
            return _scaled(terms, share * recipe.scale), None
        return tuple(terms), Combination(strategy=strategy, scale=recipe.scale, t=recipe.t)
    if strategy is Strategy.DARE_LINEAR and recipe.density == 1.0:
        return _scaled(terms, recipe.scale), None
    return tuple(terms), Combination(
        strategy=strategy,
        scale=recipe.scale,
        density=recipe.density,
        seed=None if strategy is Strategy.TIES else recipe.seed,
    )


def _scaled(terms: Sequence[Term], factor: float) -> tuple[Term, ...]:
    return tuple(replace(term, coefficient=term.coefficient * factor) for term in terms)

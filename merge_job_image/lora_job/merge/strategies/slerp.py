"""slerp: spherical interpolation between two deltas, tensor by tensor.

Between the deltas, not between the merged weights: those are nearly parallel (cos ≥ 0.9995), where a turn cannot be told from a line.
    θ = ∠(δ₁, δ₂)      Δ = sin((1−t)θ)/sin θ · δ₁ + sin(tθ)/sin θ · δ₂
Both shares are numbers, so Δ stays low-rank; ⟨δ₁, δ₂⟩ comes from the factors' r×r products, without a dense pass.
K. Shoemake, Animating rotation with quaternion curves, 1985.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lora_job.merge.factors import Deltas, Factors
from lora_job.merge.plan import Step

__all__ = ["Shares", "load_sum", "shares", "shares_of", "with_shares"]

Shares = Callable[[Factors, Factors, float], tuple[float, float]]

STRAIGHT = 0.9995
"""From this |cos| on sin θ is too small to divide by, and line and turn agree."""


def _inner(first: Factors, second: Factors) -> float:
    """⟨L₁R₁, L₂R₂⟩ = Σ (L₁ᵀL₂) ∘ (R₁R₂ᵀ), over all experts where they are stacked."""
    return float(np.sum((first.left.mT @ second.left) * (first.right @ second.right.mT)))


def shares(first: Factors, second: Factors, t: float) -> tuple[float, float]:
    """What each delta is multiplied with. Factors are float64."""
    return shares_of(_inner(first, second), _inner(first, first), _inner(second, second), t=t)


def shares_of(inner: float, first_square: float, second_square: float, *, t: float) -> tuple[float, float]:
    """The shares from ⟨δ₁, δ₂⟩, ‖δ₁‖² and ‖δ₂‖². A delta of 0 has no direction: a straight line."""
    length = math.sqrt(max(first_square, 0.0)) * math.sqrt(max(second_square, 0.0))
    if length == 0.0:
        return 1.0 - t, t
    cosine = max(-1.0, min(1.0, inner / length))
    if abs(cosine) > STRAIGHT:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def load_sum(step: Step, deltas: Deltas) -> Factors:
    """The delta of a step that is a sum of low-rank terms, once all numbers before them are known; float64."""
    return deltas.load(with_shares(step, deltas, by=shares) if step.combination else step)


def with_shares(step: Step, deltas: Deltas, *, by: Shares) -> Step:
    """slerp's step as a plain sum: its terms with the shares that the angle between the two deltas gives them."""
    combination = step.combined()
    pair = [
        replace(step, terms=tuple(term for term in step.terms if term.adapter == index), combination=None)
        for index in sorted({term.adapter for term in step.terms})
    ]
    first, second = (deltas.load(alone) for alone in pair)
    found = by(first, second, combination.t or 0.0)
    terms = tuple(
        replace(term, coefficient=term.coefficient * share * combination.scale)
        for alone, share in zip(pair, found, strict=True)
        for term in alone.terms
    )
    return replace(step, terms=terms, combination=None)

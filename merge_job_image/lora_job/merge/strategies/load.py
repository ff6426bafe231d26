"""A step's delta, ready to be added: low-rank where the strategy leaves it so, block by block where it does not."""

from collections.abc import Callable
from dataclasses import replace

import torch

from lora_job.merge.factors import Delta, Deltas, Factors
from lora_job.merge.plan import Step
from lora_job.merge.strategies.combined import Combined, combination_of
from lora_job.merge.strategies.slerp import shares

__all__ = ["Shares", "load_delta", "load_sum", "with_shares"]

Shares = Callable[[Factors, Factors, float], tuple[float, float]]


def load_delta(step: Step, deltas: Deltas, *, dtype: torch.dtype) -> Delta:
    """The delta of a step by its strategy."""
    return Combined(step, deltas, dtype=dtype) if step.elementwise else load_sum(step, deltas, dtype=dtype)


def load_sum(step: Step, deltas: Deltas, *, dtype: torch.dtype) -> Factors:
    """The delta of a step that is a sum of low-rank terms, once all numbers before them are known."""
    return deltas.load(with_shares(step, deltas, by=shares) if step.combination else step, dtype=dtype)


def with_shares(step: Step, deltas: Deltas, *, by: Shares) -> Step:
    """slerp's step as a plain sum: its terms with the shares that the angle between the two deltas gives them."""
    combination = combination_of(step)
    pair = [
        replace(step, terms=tuple(term for term in step.terms if term.adapter == index), combination=None)
        for index in sorted({term.adapter for term in step.terms})
    ]
    first, second = (deltas.load(alone, dtype=torch.float64) for alone in pair)
    found = by(first, second, combination.t or 0.0)
    terms = tuple(
        replace(term, coefficient=term.coefficient * share * combination.scale)
        for alone, share in zip(pair, found, strict=True)
        for term in alone.terms
    )
    return replace(step, terms=terms, combination=None)

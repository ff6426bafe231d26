"""What the rounding to the stored dtype did to a tensor, measured while its rows are in the processor's cache."""

from dataclasses import dataclass

import torch

from lora_job.merge.operations import Calculated
from lora_job.merge.plan import Step
from lora_job.merge.rounding import TORCH
from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["StepFigures", "Sums", "figures_of"]


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """Of one merged tensor."""

    delta: float
    """‖Δ‖"""
    moved: bool
    """Whether any number changed."""
    lost: float
    """‖W'−(W+Δ)‖: what the output's dtype could not keep."""

    @property
    def retention(self) -> float | None:
        """Share of the delta, in norm, that survived the rounding; None when there is no delta."""
        return max(0.0, 1.0 - self.lost / self.delta) if self.delta > 0 else None


class Sums:
    """Summed up from rows before and after the rounding."""

    def __init__(self, step: Step, *, delta: float | None) -> None:
        """`delta`: its norm where it is known without a dense pass, otherwise it is summed up here."""
        self._step = step
        self._delta = delta
        self._has_delta = self._moved = False
        self._changed = self._lost = 0.0

    def add(self, calculated: Calculated, result: torch.Tensor, *, place: int) -> None:
        """Takes in what some elements, from `place` on, were rounded to; overwrites them in the rows."""
        if calculated.before is None:
            if not bool(torch.isfinite(result).all()):
                raise _not_finite(self._step)
            return
        before, after = (
            rows.view(-1)[place : place + result.numel()] for rows in (calculated.before, calculated.after)
        )
        self._has_delta = True
        if self._delta is None:
            self._changed += _square(after - before)
        # One changed number is enough to know, and it is among the first.
        self._moved = self._moved or bool((before != result).any())
        after.sub_(result)
        self._lost += _square(after)

    def figures(self) -> StepFigures | None:
        """None for a tensor without a delta."""
        if not self._has_delta:
            return None
        delta = self._changed**0.5 if self._delta is None else self._delta
        return figures_of(self._step, delta=delta, moved=self._moved, lost=self._lost)


def figures_of(step: Step, *, delta: float, moved: bool, lost: float) -> StepFigures:
    """`delta`: ‖Δ‖; `moved`: whether any number changed; `lost`: ‖W'−(W+Δ)‖². Raises where the result is not finite."""
    # Such a result is Inf or NaN away from what was calculated.
    if not lost < float("inf"):
        raise _not_finite(step)
    # Where nothing moved all of it is lost, also what is too small to be seen in the sum that was rounded.
    return StepFigures(delta=delta, moved=moved, lost=lost**0.5 if moved else delta)


def _not_finite(step: Step) -> Refused:
    return Refused(
        Reason.NOT_FINITE,
        f"tensor {step.name}: the result holds NaN or Inf in {TORCH[step.dtype]}; "
        "choose --dtype bfloat16 or float32 if its range is too small, otherwise base or adapter is damaged",
    )


def _square(values: torch.Tensor) -> float:
    return float(torch.dot(values, values))

"""What the rounding to the stored dtype did to a tensor, measured while its rows are in the processor's cache."""

from dataclasses import dataclass

from lora_job.merge.plan import Step
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import DTYPE_NAMES

__all__ = ["StepFigures", "figures_of", "not_finite"]


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


def figures_of(step: Step, *, delta: float, moved: bool, lost: float) -> StepFigures:
    """`delta`: ‖Δ‖; `moved`: whether any number changed; `lost`: ‖W'−(W+Δ)‖². Raises where the result is not finite."""
    # Such a result is Inf or NaN away from what was calculated.
    if not lost < float("inf"):
        raise not_finite(step)
    # Where nothing moved all of it is lost, also what is too small to be seen in the sum that was rounded.
    return StepFigures(delta=delta, moved=moved, lost=lost**0.5 if moved else delta)


def not_finite(step: Step) -> Refused:
    """The refusal of a tensor whose result is NaN or Inf somewhere."""
    return Refused(
        Reason.NOT_FINITE,
        f"tensor {step.name}: the result holds NaN or Inf in {DTYPE_NAMES[step.dtype]}; "
        "choose --dtype bfloat16 or float32 if its range is too small, otherwise base or adapter is damaged",
    )

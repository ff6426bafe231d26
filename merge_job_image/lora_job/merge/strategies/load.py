"""A step's delta, ready to be added: low-rank where the strategy leaves it so, block by block where it does not."""

import torch

from lora_job.merge.dense import Delta, Dense
from lora_job.merge.device import CPU
from lora_job.merge.factors import Deltas
from lora_job.merge.plan import Step
from lora_job.merge.strategies.combined import Combined
from lora_job.merge.strategies.slerp import load_sum

__all__ = ["load_delta"]


def load_delta(step: Step, deltas: Deltas, *, dtype: torch.dtype, device: str = CPU) -> Delta:
    """The delta of a step by its strategy; products of low-rank ones are calculated on `device`."""
    if step.elementwise:
        return Combined(step, deltas, dtype=dtype)
    factors = load_sum(step, deltas)
    return Dense(factors.in_float32() if dtype is torch.float32 else factors, device=device)

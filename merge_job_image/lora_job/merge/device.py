"""Where products are calculated. The CPU unless --device cuda asks otherwise: a merge waits for its disk, not for its arithmetic.

On a GPU only W + B·A of plain sums is calculated, in float32 or float64 without TF32; reading, rounding, strategies by element and all of
the verification stay on the CPU. Where there is no usable GPU the CPU does it, and a warning says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from lora_job.merge.factors import Delta, Deltas, Factors, LowRank, Stacked
from lora_job.merge.plan import Step, Warned
from lora_job.merge.strategies.load import load_delta

__all__ = ["CPU", "Chosen", "Gpu", "OnDevice", "choose_device", "find_gpu", "load_for", "released"]

CPU = torch.device("cpu")
LEAST_FREE = 512 * 2**20
"""Bytes: CUDA's own libraries, the factors of one tensor and a few chunks."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU that CUDA sees; `free` in bytes."""

    name: str
    free: int


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """`told`: the warning where it is not what was asked for."""

    device: torch.device
    told: tuple[Warned, ...] = ()


def find_gpu() -> Gpu | None:
    """The first GPU; None where CUDA does not work."""
    if not torch.cuda.is_available():
        return None
    free, _total = torch.cuda.mem_get_info(0)
    return Gpu(name=torch.cuda.get_device_name(0), free=free)


def choose_device(wanted: str, *, gpu: Gpu | None) -> Chosen:
    """`wanted` is auto, cpu or cuda; auto is the CPU, so that the same recipe gives the same bytes on every machine."""
    if wanted != "cuda":
        return Chosen(device=CPU)
    problem = ""
    if gpu is None:
        problem = "CUDA finds no GPU here"
    elif gpu.free < LEAST_FREE:
        problem = f"{gpu.name} has {gpu.free} bytes free, {LEAST_FREE} are needed"
    if problem:
        message = f"--device cuda: {problem}; merged on the CPU instead"
        return Chosen(device=CPU, told=(Warned(code="DeviceFallback", message=message),))
    return Chosen(device=torch.device("cuda", 0))


class OnDevice:
    """A low-rank delta whose products are calculated on a device; rows come from the CPU's memory and go back to it."""

    def __init__(self, delta: Factors, *, device: torch.device) -> None:
        left, right = delta.left.to(device), delta.right.to(device)
        self._near = Stacked(left=left, right=right) if isinstance(delta, Stacked) else LowRank(left=left, right=right)
        self._delta, self._device = delta, device

    def rows(self, start: int, end: int) -> torch.Tensor:
        return self._near.rows(start, end).to(CPU)

    def add_to(self, weights: torch.Tensor, start: int, end: int) -> None:
        there = weights.to(self._device)
        self._near.add_to(there, start, end)
        weights.copy_(there)

    def norm(self) -> float:
        return self._delta.norm()

    def float32_error(self) -> torch.Tensor:
        return self._delta.float32_error()


def load_for(device: torch.device, step: Step, deltas: Deltas, *, dtype: torch.dtype) -> Delta:
    """The delta of a step by its strategy, its products on `device` where they are plain."""
    delta = load_delta(step, deltas, dtype=dtype)
    return OnDevice(delta, device=device) if device != CPU and isinstance(delta, LowRank | Stacked) else delta


@contextmanager
def released(device: torch.device) -> Iterator[None]:
    """Gives the GPU's memory back at the end, however it ends: a server may be waiting for it."""
    try:
        yield
    finally:
        if device != CPU:
            torch.cuda.empty_cache()

"""Where products are calculated. The CPU unless --device cuda asks otherwise: a merge waits for its disk, not for its arithmetic.

On a GPU only W + B·A of plain sums is calculated, in float32 or float64 without TF32; reading, rounding, strategies by element and all of
the verification stay on the CPU. Where there is no usable GPU the CPU does it, and a warning says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lora_job.merge.plan import Warned

__all__ = ["CPU", "Chosen", "Gpu", "choose_device", "find_gpu", "released"]

CPU, CUDA = "cpu", "cuda:0"
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

    device: str
    """As torch names it."""
    told: tuple[Warned, ...] = ()


def find_gpu() -> Gpu | None:
    """The first GPU; None where CUDA does not work."""
    import torch  # noqa: PLC0415 (seconds, and only asked where somebody wants a GPU)

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
    return Chosen(device=CUDA)


@contextmanager
def released(device: str) -> Iterator[None]:
    """Gives the GPU's memory back at the end, however it ends: a server may be waiting for it."""
    try:
        yield
    finally:
        if device != CPU:
            import torch  # noqa: PLC0415

            torch.cuda.empty_cache()

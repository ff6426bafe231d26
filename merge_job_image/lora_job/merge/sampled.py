"""Some elements of a written tensor beside float64 rounded once: rows here and there, so that a fault of any row has its chance."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lora_job.merge.checks import wrong
from lora_job.merge.factors import Deltas
from lora_job.merge.plan import Operation, Step
from lora_job.merge.stored_numbers import Exact, Stored, as_numbers, as_stored, quiet, round_once, ulp_distance
from lora_job.merge.stream import Reader, Sources, matrix_shape

__all__ = ["ALLOWED_SHARE", "MAX_ULP", "NEAR_ZERO", "Sample", "sample_of"]

ELEMENTS = 2**16
PLACES = 16
# Share of elements that may differ from float64 rounded once.
ALLOWED_SHARE: Mapping[str, float] = {"BF16": 1e-4, "F16": 5e-4, "F32": 1e-5, "F64": 1e-5}
MAX_ULP = 1
NEAR_ZERO = 2.0**-22
ExactRows = Callable[[int, int], tuple[Exact, Exact]]
"""W and the result, of rows from … to …"""


@dataclass(kw_only=True)
class Sample:
    """What the comparison of one tensor has shown."""

    elements: int = 0
    mismatched: int = 0
    max_ulp: int = 0

    def compare(self, step: Step, new: Stored, *, old: Exact, exact: Exact, start: int) -> None:
        """Takes in some rows as they are stored."""
        expected = round_once(exact, step.dtype)
        self.elements += new.size
        distance = ulp_distance(new, expected)
        if not distance.any():
            return
        # Where W and Δ cancel, a unit in the last place of the tiny result means nothing.
        near = NEAR_ZERO * np.maximum(np.abs(old), np.abs(exact - old))
        excused = np.abs(as_numbers(new, step.dtype).astype(np.float64) - exact) <= near
        counted = distance[~excused]
        self.mismatched += int(np.count_nonzero(counted))
        self.max_ulp = max(self.max_ulp, int(counted.max(initial=0)))
        if self.max_ulp > MAX_ULP:
            raise wrong(step, f"from row {start} on it is {self.max_ulp} units in the last place away from float64")

    def judge(self, step: Step) -> None:
        """Raises when more elements differ than chance explains.

        The bound is one of whole tensors: a sample that is right may exceed it by chance, but not by four standard deviations.
        """
        expected = ALLOWED_SHARE[step.dtype] * self.elements
        allowed = max(2, int(expected + 4 * math.sqrt(expected)))
        if self.mismatched > allowed:
            raise wrong(
                step,
                f"{self.mismatched} of {self.elements} sampled elements differ from float64 rounded once, "
                f"expected at most {allowed}",
            )


@quiet
def sample_of(step: Step, *, sources: Sources, deltas: Deltas, written: Reader, seed: int) -> Sample:
    """Compares about ELEMENTS of a tensor; raises where they are not what they should be."""
    sample, exact = Sample(), _exact_rows(step, sources=sources, deltas=deltas)
    for start, end in _chosen_rows(step, seed=seed):
        old, wanted = exact(start, end)
        new = as_stored(written.data(start, end), step.dtype).reshape(wanted.shape)
        sample.compare(step, new, old=old, exact=wanted, start=start)
    sample.judge(step)
    return sample


def _exact_rows(step: Step, *, sources: Sources, deltas: Deltas) -> ExactRows:
    if step.operation is not Operation.LORA or step.combination is not None:
        from lora_job.merge.recalculated import exact_rows  # noqa: PLC0415 (torch, which other merges can do without)

        return exact_rows(step, sources=sources, deltas=deltas)
    delta, reader = deltas.load(step), sources.origin_rows(step)

    def rows(start: int, end: int) -> tuple[Exact, Exact]:
        stored = as_numbers(as_stored(reader.data(start, end), reader.dtype), reader.dtype)
        old = stored.astype(np.float64).reshape(end - start, reader.columns)
        return old, old + delta.rows(start, end)

    return rows


def _chosen_rows(step: Step, *, seed: int) -> list[tuple[int, int]]:
    """Some rows here and there, or blocks where rows are only decided in blocks."""
    if step.elementwise:
        from lora_job.merge.strategies.combined import BLOCK_ELEMENTS, blocks_of  # noqa: PLC0415 (as above)

        every, count = blocks_of(step), ELEMENTS // BLOCK_ELEMENTS
    else:
        rows, columns = matrix_shape(step.shape)
        height = max(1, ELEMENTS // PLACES // max(1, columns))
        every, count = [(row, min(rows, row + height)) for row in range(0, rows, height)], PLACES
    some = np.random.default_rng(seed).permutation(len(every))[:count]
    return [every[place] for place in sorted(some.tolist())]

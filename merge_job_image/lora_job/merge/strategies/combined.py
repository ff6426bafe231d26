"""A delta whose elements are decided one by one (ties, dare): calculated block by block in float64, never held whole.

    δᵢ of adapter i   ─► trimmed (ties) or dropped and rescaled (dare)   ─► Σ wᵢδᵢ, or the mean of the side that wins

The blocks follow from the tensor's shape alone, so that every pass over a delta calculates the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lora_job.merge.dense import Dense
from lora_job.merge.factors import Deltas
from lora_job.merge.plan import Step, Term
from lora_job.merge.recipe import Strategy
from lora_job.merge.strategies.consensus import Consensus
from lora_job.merge.strategies.dare import RandomDrop
from lora_job.merge.strategies.trim import Trim, find_trim, kept_count, magnitudes
from lora_job.merge.stream import chunks, matrix_shape
from lora_job.tensors import DTYPE_BYTES

__all__ = ["Combined", "Part", "blocks", "blocks_of", "load_parts", "trims_of"]

BLOCK_ELEMENTS = 2**15
"""256 KiB of float64: a block and what is calculated from it stay in a core's cache, and malloc reuses the pages of the last one."""


def blocks_of(step: Step) -> list[tuple[int, int]]:
    """All blocks of a tensor: those of its chunks, in their order."""
    columns = matrix_shape(step.shape)[1]
    ranges = chunks(step.shape, item=DTYPE_BYTES[step.source_dtype])
    return [block for start, end in ranges for block in blocks(start, end, columns=columns)]


def blocks(start: int, end: int, *, columns: int, elements: int | None = None) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about so many elements, BLOCK_ELEMENTS where nothing is said."""
    height = max(1, (elements or BLOCK_ELEMENTS) // max(1, columns))
    for first in range(start, end, height):
        yield first, min(end, first + height)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One adapter's delta for one tensor, without its weight."""

    step: Step
    delta: Dense
    weight: float
    drop: RandomDrop | None
    """None: ties, which trims by magnitude."""
    check: Callable[[], None]

    @property
    def columns(self) -> int:
        return matrix_shape(self.step.shape)[1]

    @property
    def elements(self) -> int:
        rows, columns = matrix_shape(self.step.shape)
        return rows * columns

    @property
    def keep(self) -> int:
        """How many elements ties keeps."""
        return kept_count(self.elements, density=self.step.combined().density or 1.0)

    def whole(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The delta in the blocks that the merge uses, so that a threshold is found in the very same bits."""
        for start, end in blocks_of(self.step):
            self.check()
            yield start * self.columns, self.delta.rows(start, end)

    def sample(self) -> torch.Tensor:
        """Elements from all over the delta."""
        return self.delta.sample()

    def kept(self, delta: torch.Tensor, start: int, *, trim: Trim | None) -> torch.Tensor:
        """Which elements of δ's rows from `start` on stay."""
        first = start * self.columns
        if self.drop is not None:
            return self.drop.kept(start=first, count=delta.numel()).view(delta.shape)
        if trim is None:
            raise AssertionError("ties keeps what its trim says")
        return trim.kept(magnitudes(delta), start=first).view(delta.shape)

    def thinned(self, delta: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """δ after dropping or trimming; overwrites it."""
        delta.mul_(kept)
        return delta if self.drop is None else delta.div_(self.drop.density)

    def rows(self, start: int, end: int, *, trim: Trim | None) -> torch.Tensor:
        """δ of some rows after dropping or trimming, float64."""
        delta = self.delta.rows(start, end)
        if trim is not None:
            return trim.thinned(delta, start=start * self.columns)
        return self.thinned(delta, self.kept(delta, start, trim=trim))


def load_parts(step: Step, deltas: Deltas) -> list[Part]:
    """The deltas of a step in the order of the adapters."""
    by_adapter: dict[int, list[Term]] = {}
    for term in step.terms:
        by_adapter.setdefault(term.adapter, []).append(term)
    parts = []
    for index, terms in by_adapter.items():
        alone = replace(step, terms=tuple(replace(term, coefficient=1.0) for term in terms), combination=None)
        parts.append(
            Part(
                step=step,
                delta=Dense(deltas.load(alone)),
                weight=terms[0].coefficient,
                drop=_drop(step, digest=deltas.digest(index)),
                check=deltas.check,
            )
        )
    return parts


def _drop(step: Step, *, digest: str) -> RandomDrop | None:
    combination = step.combined()
    if combination.seed is None or combination.density is None:
        return None
    return RandomDrop(seed=combination.seed, digest=digest, tensor=step.name, density=combination.density)


def trims_of(step: Step, parts: Sequence[Part], deltas: Deltas) -> Sequence[Trim | None]:
    """What each adapter's delta is cut to, found once in a build; None where the strategy drops at random instead."""
    if step.combined().strategy is not Strategy.TIES:
        return [None] * len(parts)
    found = deltas.trims.get(step.name)
    if found is None:
        found = tuple(
            find_trim(part.whole, total=part.elements, keep=part.keep, sample=part.sample()) for part in parts
        )
        deltas.trims[step.name] = found
    return found


class Combined:
    """Δ of one tensor."""

    def __init__(self, step: Step, deltas: Deltas, *, dtype: torch.dtype) -> None:
        self._combination = step.combined()
        self._columns = matrix_shape(step.shape)[1]
        self._parts = load_parts(step, deltas)
        self._trims = trims_of(step, self._parts, deltas)
        self._dtype = dtype
        self._consensus = Consensus()

    def rows(self, start: int, end: int) -> torch.Tensor:
        out = torch.empty(end - start, self._columns, dtype=self._dtype)
        for first, last in blocks(start, end, columns=self._columns):
            out[first - start : last - start] = self._block(first, last)
        return out

    def add_to(self, weights: torch.Tensor, start: int, end: int) -> None:
        for first, last in blocks(start, end, columns=self._columns):
            weights[first - start : last - start].add_(self._block(first, last).to(self._dtype))

    def norm(self) -> None:
        """Known only after a dense pass, which the merge is."""

    def _block(self, start: int, end: int) -> torch.Tensor:
        changed = (
            (part.rows(start, end, trim=trim), part.weight) for part, trim in zip(self._parts, self._trims, strict=True)
        )
        if self._combination.strategy is Strategy.DARE_LINEAR:
            total = torch.zeros(end - start, self._columns, dtype=torch.float64)
            for delta, weight in changed:
                total.add_(delta, alpha=weight)
            return total.mul_(self._combination.scale)
        return self._consensus.of(changed).mul_(self._combination.scale)

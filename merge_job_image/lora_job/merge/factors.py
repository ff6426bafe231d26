"""Deltas of tensors as factors, whatever the layer, however many adapters and however they are combined.

    linear, Conv1D, embedding, bias   LowRank   Δ[rows] = left[rows] @ right, all terms concatenated along the rank
    experts stacked in one tensor     Stacked   the same for each expert

so that a merge is one product and one rounding. Coefficient and scale are multiplied into one side in float64. Nothing here needs torch;
dense.py adds what does.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lora_job.merge.adapter import Adapter
from lora_job.merge.adapter import Part as AdapterPart
from lora_job.merge.plan import Geometry, Ref, Step, Term
from lora_job.merge.stored_numbers import Exact, Floats, as_numbers, as_stored, is_finite, quiet, significant_bits
from lora_job.merge.stream import OpenFiles
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.tensors import Entry, Header

if TYPE_CHECKING:  # it needs torch
    from lora_job.merge.strategies.trim import Trim

__all__ = ["Deltas", "Factors", "LowRank", "Part", "Stacked", "by_expert", "check_factors", "least_certain"]

# B of fused experts has the expert fastest: it is turned once for all experts of a layer, not once for each.
REMEMBERED = 4


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """left [rows, r], right [r, columns]; both float64 or both float32."""

    left: Floats
    right: Floats

    @quiet
    def in_float32(self) -> "LowRank":
        """The same, rounded."""
        return LowRank(left=self.left.astype(np.float32), right=self.right.astype(np.float32))

    def parts(self, start: int, end: int) -> Iterator["Part"]:
        """The matrices that some rows are of: this one."""
        yield Part(factors=self, first=start, last=end, place=0)

    @quiet
    def rows(self, start: int, end: int) -> Floats:
        """Δ of some rows."""
        return self.left[start:end] @ self.right

    @quiet
    def project(self, vector: Exact) -> Exact:
        """Δ @ vector."""
        return self.left @ (self.right @ vector)

    def norm(self) -> float:
        """‖Δ‖ from two r×r products: no dense pass."""
        return _norm(self.left, self.right)


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """left [experts, rows, r], right [experts, r, columns]: the experts' matrices below each other."""

    left: Floats
    right: Floats

    @quiet
    def in_float32(self) -> "Stacked":
        """The same, rounded."""
        return Stacked(left=self.left.astype(np.float32), right=self.right.astype(np.float32))

    def parts(self, start: int, end: int) -> Iterator["Part"]:
        """The experts' matrices that some rows are of."""
        for expert, first, last, place in by_expert(start, end, height=self.left.shape[1]):
            factors = LowRank(left=self.left[expert], right=self.right[expert])
            yield Part(factors=factors, first=first, last=last, place=place)

    def rows(self, start: int, end: int) -> Floats:
        """Δ of some rows."""
        return np.concatenate([part.factors.rows(part.first, part.last) for part in self.parts(start, end)])

    @quiet
    def project(self, vector: Exact) -> Exact:
        """Δ @ vector."""
        return (self.left @ (self.right @ vector)[:, :, np.newaxis]).reshape(-1)

    def norm(self) -> float:
        """‖Δ‖ from two r×r products for each expert."""
        return _norm(self.left, self.right)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows `first` to `last` of one matrix, which are those from `place` on of the range that was asked for."""

    factors: LowRank
    first: int
    last: int
    place: int

    @property
    def height(self) -> int:
        return self.last - self.first


def by_expert(start: int, end: int, *, height: int) -> Iterator[tuple[int, int, int, int]]:
    """(expert, its first row, its last, their place in the range), where each expert has `height` of the rows."""
    place = start
    while place < end:
        expert, first = divmod(place, height)
        last = min(height, first + end - place)
        yield expert, first, last, place - start
        place += last - first


Factors = LowRank | Stacked
"""A delta that is known without its elements."""


@quiet
def _norm(left: Floats, right: Floats) -> float:
    left, right = left.astype(np.float64, copy=False), right.astype(np.float64, copy=False)
    square = np.sum((left.mT @ left) * (right @ right.mT))
    return math.sqrt(max(0.0, float(square)))


@quiet
def least_certain(delta: Factors, *, dtype: str) -> npt.NDArray[np.float32]:
    """By row, from which size on float32 knows an element of W + Δ to its last digit in `dtype` (operations/cancellation.py).

    `delta` is float32. Rounding errors of r terms add up like √r, four times that is hardly ever exceeded; 2^-24 is float32's unit
    roundoff, and Σ|left|·max|right| is at least the sum of the terms (Higham, Accuracy and Stability of Numerical Algorithms, chapters 3
    and 4). Three roundings are those of the factors and of the sum with W.
    """
    terms = np.abs(delta.left) @ np.abs(delta.right).max(axis=-1, keepdims=True)
    error = terms.reshape(-1) * np.float32(4 * math.sqrt(delta.left.shape[-1] + 3) * 2.0**-24)
    least: npt.NDArray[np.float32] = error * np.float32(2.0 ** (significant_bits(dtype) + 1))
    return least


def _joined(sides: Sequence[Exact], *, axis: int) -> Exact:
    """Beside each other; one alone is not copied for that: in float64 it is four times what the adapter stores."""
    return np.ascontiguousarray(sides[0] if len(sides) == 1 else np.concatenate(sides, axis=axis))


class Deltas:
    """Loads deltas for one build; safe to use from several threads."""

    def __init__(
        self, adapters: Sequence[Adapter], *, files: OpenFiles, check: Callable[[], None] = lambda: None
    ) -> None:
        """`check` raises when long work must stop."""
        self.adapters = tuple(adapters)
        self.files = files
        self.check = check
        self.trims: dict[str, tuple[Trim, ...]] = {}
        """ties: by tensor, what each adapter's delta is cut to; found once, used by all."""
        self._by_expert: OrderedDict[tuple[int, str], Floats] = OrderedDict()
        self._lock = threading.Lock()

    def digest(self, adapter: int) -> str:
        """An adapter's digest."""
        return self.adapters[adapter].digest

    def place(self, ref: Ref) -> tuple[Header, Entry]:
        """Where a tensor of an adapter is."""
        header = self.adapters[ref.adapter].header
        return header, header.by_name[ref.key]

    def load(self, step: Step) -> Factors:
        """The sum of a step's terms, in float64."""
        sides = [self._sides(term) for term in step.terms]
        left = _joined([left for left, _ in sides], axis=-1)
        right = _joined([right for _, right in sides], axis=-2)
        return Stacked(left=left, right=right) if left.ndim == 3 else LowRank(left=left, right=right)

    def _sides(self, term: Term) -> tuple[Exact, Exact]:
        """(left, right) with coefficient and scale inside."""
        factor = term.coefficient * term.scale
        if term.geometry in {Geometry.EXPERTS, Geometry.EXPERTS_TRANSPOSED}:
            left, right = self._expert_sides(term)
            return left * factor, right
        b = self._exact(term, term.b)
        b *= factor
        if term.geometry is Geometry.BIAS:
            return b.reshape(-1, 1), np.ones((1, 1))
        a = self._exact(term, term.a)
        return (b, a) if term.geometry is Geometry.LINEAR else (a.T, b.T)

    def _expert_sides(self, term: Term) -> tuple[Exact, Exact]:
        """Of all experts, or of one and the rows of it that a tensor on disk holds."""
        experts_b = self._experts_first(term)
        if term.part is None:
            a = self._exact(term, term.a).reshape(term.experts, term.rank, -1)
            b = experts_b.astype(np.float64)
        else:
            first = term.part.expert * term.rank
            a = self._exact(term, term.a, start=first, end=first + term.rank)
            b = experts_b[term.part.expert].astype(np.float64)
        left, right = (b, a) if term.geometry is Geometry.EXPERTS else (a.mT, b.mT)
        return (left, right) if term.part is None else (left[term.part.start : term.part.stop], right)

    def _experts_first(self, term: Term) -> Floats:
        """B [out, rank · experts] with the expert fastest, as [experts, out, rank]."""
        key = (term.adapter, term.b)
        with self._lock:
            found = self._by_expert.get(key)
            if found is None:
                stored = self._numbers(term, term.b)
                by_expert = stored.reshape(len(stored), term.rank, term.experts).transpose(2, 0, 1)
                found = self._by_expert[key] = np.ascontiguousarray(by_expert)
            self._by_expert.move_to_end(key)
            while len(self._by_expert) > REMEMBERED:
                self._by_expert.popitem(last=False)
            return found

    def _exact(self, term: Term, key: str, *, start: int = 0, end: int | None = None) -> Exact:
        return self._numbers(term, key, start=start, end=end).astype(np.float64)

    def _numbers(self, term: Term, key: str, *, start: int = 0, end: int | None = None) -> Floats:
        """A factor as it is stored, or these of its first dimension."""
        header, entry = self.place(Ref(adapter=term.adapter, key=key))
        stored = as_stored(self.files.read(header, entry, start=start, end=end), entry.dtype)
        shape = entry.shape if end is None else (end - start, *entry.shape[1:])
        return as_numbers(stored, entry.dtype).reshape(shape)


def check_factors(adapter: Adapter) -> list[str]:
    """Refuses NaN and Inf in any of an adapter's tensors; names the modules whose B is zero throughout."""
    idle = []
    with OpenFiles() as files:
        for module, parts in adapter.modules.items():
            for part, entry in parts.items():
                data = files.read(adapter.header, entry)
                if not is_finite(data, entry.dtype):
                    raise _not_finite(adapter, entry)
                is_b = part in {AdapterPart.B, AdapterPart.EMBEDDING_B}
                if is_b and not as_numbers(as_stored(data, entry.dtype), entry.dtype).any():
                    idle.append(module)
    return idle


def _not_finite(adapter: Adapter, entry: Entry) -> Refused:
    return Refused(
        Reason.NOT_FINITE,
        f"{adapter.where}: tensor {entry.name!r} holds NaN or Inf; its training diverged, take an earlier checkpoint",
    )

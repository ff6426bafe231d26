"""Deltas of tensors: Δ by rows, whatever the layer, however many adapters and however they are combined.

    linear, Conv1D, embedding, bias   LowRank   Δ[rows] = left[rows] @ right, all terms concatenated along the rank
    experts stacked in one tensor     Stacked   the same for each expert

so that a merge is one product and one rounding. Coefficient and scale are multiplied into one side in float64 first.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from lora_job.merge.adapter import Adapter
from lora_job.merge.plan import Geometry, Ref, Step, Term
from lora_job.merge.strategies.trim import Trim
from lora_job.merge.stream import read_tensor
from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["Delta", "Deltas", "Factors", "LowRank", "Part", "Stacked", "check_factors", "load_ref"]

# B of fused experts has the expert fastest: it is turned once for all experts of a layer, not once for each.
REMEMBERED = 4
SAMPLE_SIDE, SAMPLE_EXPERTS = 512, 16


class Delta(Protocol):
    """What is added to a tensor, [rows, columns], in one dtype."""

    def rows(self, start: int, end: int) -> torch.Tensor:
        """Δ of some rows."""

    def add_to(self, weights: torch.Tensor, start: int, end: int) -> None:
        """weights += Δ of some rows."""

    def norm(self) -> float | None:
        """‖Δ‖ where it is known without a dense pass."""

    def float32_error(self) -> torch.Tensor | None:
        """By row, what an element of Δ may be off by when its terms are summed in float32; None where Δ is no such sum."""


def _float32_error(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Rounding errors of r terms add up like √r, four times that is hardly ever exceeded; 2^-24 is float32's unit roundoff, and
    Σ|left|·max|right| is at least the sum of the terms (Higham, Accuracy and Stability of Numerical Algorithms, chapters 3 and 4).
    Three roundings are those of the factors and of the sum with W.
    """
    terms = left.float().abs() @ right.float().abs().amax(dim=-1, keepdim=True)
    return terms.reshape(-1) * (4 * math.sqrt(left.shape[-1] + 3) * 2.0**-24)


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """left [rows, r], right [r, columns]."""

    left: torch.Tensor
    right: torch.Tensor

    def parts(self, start: int, end: int) -> Iterator["Part"]:
        """The matrices that some rows are of: this one."""
        yield Part(factors=self, first=start, last=end, place=0)

    def rows(self, start: int, end: int) -> torch.Tensor:
        return self.left[start:end] @ self.right

    def add_to(self, weights: torch.Tensor, start: int, end: int) -> None:
        weights.addmm_(self.left[start:end], self.right)

    def norm(self) -> float:
        """From two r×r products: no dense pass."""
        left, right = self.left.double(), self.right.double()
        return float(((left.T @ left) * (right @ right.T)).sum().clamp_min(0).sqrt())

    def float32_error(self) -> torch.Tensor:
        return _float32_error(self.left, self.right)

    def project(self, vector: torch.Tensor) -> torch.Tensor:
        """Δ @ vector."""
        return self.left @ (self.right @ vector)

    def elements(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Δ of single elements."""
        return (self.left[rows] * self.right.T[columns]).sum(dim=-1)

    def sample(self) -> torch.Tensor:
        """At most SAMPLE_SIDE² elements, of rows and columns from all over Δ."""
        rows, columns = (-(-size // SAMPLE_SIDE) for size in (self.left.shape[0], self.right.shape[1]))
        return (self.left[::rows] @ self.right[:, ::columns]).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """left [experts, rows, r], right [experts, r, columns]: the experts' matrices below each other."""

    left: torch.Tensor
    right: torch.Tensor

    def parts(self, start: int, end: int) -> Iterator["Part"]:
        """The experts' matrices that some rows are of."""
        height = self.left.shape[1]
        place = start
        while place < end:
            expert, first = divmod(place, height)
            last = min(height, first + end - place)
            factors = LowRank(left=self.left[expert], right=self.right[expert])
            yield Part(factors=factors, first=first, last=last, place=place - start)
            place += last - first

    def rows(self, start: int, end: int) -> torch.Tensor:
        return torch.cat([part.factors.rows(part.first, part.last) for part in self.parts(start, end)])

    def add_to(self, weights: torch.Tensor, start: int, end: int) -> None:
        for part in self.parts(start, end):
            part.factors.add_to(weights[part.place : part.place + part.height], part.first, part.last)

    def norm(self) -> float:
        left, right = self.left.double(), self.right.double()
        return float(((left.mT @ left) * (right @ right.mT)).sum().clamp_min(0).sqrt())

    def float32_error(self) -> torch.Tensor:
        return _float32_error(self.left, self.right)

    def project(self, vector: torch.Tensor) -> torch.Tensor:
        """Δ @ vector."""
        return (self.left @ (self.right @ vector).unsqueeze(-1)).reshape(-1)

    def elements(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Δ of single elements."""
        expert = rows // self.left.shape[1]
        return (self.left.flatten(0, 1)[rows] * self.right.mT[expert, columns]).sum(dim=-1)

    def sample(self) -> torch.Tensor:
        """As of one matrix, from some of the experts."""
        few = range(0, len(self.left), -(-len(self.left) // SAMPLE_EXPERTS))
        return torch.cat([LowRank(left=self.left[one], right=self.right[one]).sample() for one in few])


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


Factors = LowRank | Stacked
"""A delta that is known without its elements."""


def _joined(sides: Sequence[torch.Tensor], *, dim: int) -> torch.Tensor:
    """Beside each other; one alone is not copied for that: in float64 it is four times what the adapter stores."""
    return (sides[0] if len(sides) == 1 else torch.cat(list(sides), dim=dim)).contiguous()


def load_ref(ref: Ref, adapters: Sequence[Adapter]) -> torch.Tensor:
    """A tensor of an adapter as stored."""
    header = adapters[ref.adapter].header
    return read_tensor(header, header.by_name[ref.key])


class Deltas:
    """Loads deltas for one build; safe to use from several threads."""

    def __init__(self, adapters: Sequence[Adapter], *, check: Callable[[], None] = lambda: None) -> None:
        """`check` raises when long work must stop."""
        self.adapters = tuple(adapters)
        self.check = check
        self.trims: dict[str, tuple[Trim, ...]] = {}
        """ties: by tensor, what each adapter's delta is cut to; found once, used by all."""
        self._by_expert: OrderedDict[tuple[int, str], torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def digest(self, adapter: int) -> str:
        """An adapter's digest."""
        return self.adapters[adapter].digest

    def load(self, step: Step, *, dtype: torch.dtype) -> Factors:
        """The sum of a step's terms, ready to add."""
        sides = [self._sides(term) for term in step.terms]
        left = _joined([left.to(dtype) for left, _ in sides], dim=-1)
        right = _joined([right.to(dtype) for _, right in sides], dim=-2)
        return Stacked(left=left, right=right) if left.dim() == 3 else LowRank(left=left, right=right)

    def _sides(self, term: Term) -> tuple[torch.Tensor, torch.Tensor]:
        """(left, right) in float64 with coefficient and scale inside."""
        factor = term.coefficient * term.scale
        if term.geometry in {Geometry.EXPERTS, Geometry.EXPERTS_TRANSPOSED}:
            left, right = self._expert_sides(term)
            return left * factor, right
        b = self._whole(term, term.b).double() * factor
        if term.geometry is Geometry.BIAS:
            return b.reshape(-1, 1), torch.ones(1, 1, dtype=torch.float64)
        a = self._whole(term, term.a).double()
        return (b, a) if term.geometry is Geometry.LINEAR else (a.T, b.T)

    def _expert_sides(self, term: Term) -> tuple[torch.Tensor, torch.Tensor]:
        """Of all experts, or of one and the rows of it that a tensor on disk holds."""
        b = self._experts_first(term)
        header = self.adapters[term.adapter].header
        entry = header.by_name[term.a]
        if term.part is None:
            a = read_tensor(header, entry).double().reshape(term.experts, term.rank, -1)
        else:
            first = term.part.expert * term.rank
            a = read_tensor(header, entry, start=first, end=first + term.rank).double()
            b = b[term.part.expert]
        left, right = (b.double(), a) if term.geometry is Geometry.EXPERTS else (a.mT, b.double().mT)
        return (left, right) if term.part is None else (left[term.part.start : term.part.stop], right)

    def _experts_first(self, term: Term) -> torch.Tensor:
        """B [out, rank · experts] with the expert fastest, as [experts, out, rank]."""
        key = (term.adapter, term.b)
        with self._lock:
            found = self._by_expert.get(key)
            if found is None:
                stored = self._whole(term, term.b)
                found = stored.reshape(stored.shape[0], term.rank, term.experts).permute(2, 0, 1).contiguous()
                self._by_expert[key] = found
            self._by_expert.move_to_end(key)
            while len(self._by_expert) > REMEMBERED:
                self._by_expert.popitem(last=False)
            return found

    def _whole(self, term: Term, key: str) -> torch.Tensor:
        return load_ref(Ref(adapter=term.adapter, key=key), self.adapters)

    def load_ref(self, ref: Ref) -> torch.Tensor:
        """A whole tensor of an adapter as stored."""
        return load_ref(ref, self.adapters)


def check_factors(adapter: Adapter) -> list[str]:
    """Refuses NaN and Inf in any of an adapter's tensors; names the modules whose B is zero throughout."""
    idle = []
    for module, parts in adapter.modules.items():
        for part, entry in parts.items():
            tensor = read_tensor(adapter.header, entry)
            if not bool(torch.isfinite(tensor).all()):
                raise Refused(
                    Reason.NOT_FINITE,
                    f"{adapter.where}: tensor {entry.name!r} holds NaN or Inf; its training diverged, take an earlier checkpoint",
                )
            if part.value in {"lora_B", "lora_embedding_B"} and not bool(tensor.any()):
                idle.append(module)
    return idle

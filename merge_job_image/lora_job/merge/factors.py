"""Factors of a delta, brought into one shape: Δ[rows] = left[rows] @ right, whatever the layer and however many adapters.

All terms of a tensor are concatenated along the rank, so that a merge is one product and one rounding. Coefficient and scale are
multiplied into one side in float64 first.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lora_job.merge.adapter import Adapter
from lora_job.merge.plan import Geometry, Ref, Term
from lora_job.merge.rounding import TORCH
from lora_job.outcome import Infrastructure, Refused
from lora_job.reasons import Reason
from lora_job.tensors import Entry, Header

__all__ = ["LowRank", "check_factors", "load_low_rank", "load_ref", "read_into"]


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """left [rows, r], right [r, columns]."""

    left: torch.Tensor
    right: torch.Tensor

    def norm(self) -> float:
        """‖left·right‖ from two r×r products: no dense pass."""
        left, right = self.left.double(), self.right.double()
        return float(((left.T @ left) * (right @ right.T)).sum().clamp_min(0).sqrt())

    def rows(self, chosen: slice | torch.Tensor) -> torch.Tensor:
        """Δ of some rows."""
        return self.left[chosen] @ self.right


def read_into(descriptor: int, view: memoryview, *, offset: int, where: str) -> None:
    """Fill `view` from a file; a file that became shorter is an error of the surroundings."""
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise Infrastructure(Reason.SOURCE_CHANGED, f"{where} became shorter while it was being read")
        done += count


def read_tensor(header: Header, entry: Entry) -> torch.Tensor:
    """A whole (small) tensor as stored."""
    tensor = torch.empty(entry.shape, dtype=TORCH[entry.dtype])
    if entry.size:
        descriptor = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            view = memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
            read_into(descriptor, view, offset=header.data_start + entry.begin, where=str(header.path))
        finally:
            os.close(descriptor)
    return tensor


def _load(adapter: Adapter, key: str) -> torch.Tensor:
    entry = next(entry for entry in adapter.header.entries if entry.name == key)
    return read_tensor(adapter.header, entry)


def load_ref(ref: Ref, adapters: Sequence[Adapter]) -> torch.Tensor:
    """A tensor of an adapter as stored."""
    return _load(adapters[ref.adapter], ref.key)


def _sides(term: Term, adapter: Adapter) -> tuple[torch.Tensor, torch.Tensor]:
    """(left, right) in float64 with coefficient and scale inside."""
    factor = term.coefficient * term.scale
    b = _load(adapter, term.b).double() * factor
    if term.geometry is Geometry.BIAS:
        return b.reshape(-1, 1), torch.ones(1, 1, dtype=torch.float64)
    a = _load(adapter, term.a).double()
    if term.geometry is Geometry.LINEAR:
        return b, a
    return a.T, b.T


def load_low_rank(terms: Sequence[Term], adapters: Sequence[Adapter], *, dtype: torch.dtype) -> LowRank:
    """The delta of one tensor, ready to multiply."""
    sides = [_sides(term, adapters[term.adapter]) for term in terms]
    return LowRank(
        left=torch.cat([left.to(dtype) for left, _ in sides], dim=1).contiguous(),
        right=torch.cat([right.to(dtype) for _, right in sides], dim=0).contiguous(),
    )


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

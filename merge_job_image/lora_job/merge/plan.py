"""The plan: one step for every tensor of the output, as plain data. What the engine does, what a dry run shows, what tests compare.

A plan knows shapes, dtypes and scales but no weight and no path, so that the same inputs give the same plan anywhere.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Any

from lora_job.merge.recipe import ELEMENTWISE, Strategy, canonical
from lora_job.tensors import DTYPE_BYTES

__all__ = [
    "WHOLE",
    "Combination",
    "ExpertPart",
    "Geometry",
    "Operation",
    "Plan",
    "Ref",
    "Rows",
    "ShardPlan",
    "Step",
    "Stored",
    "Term",
    "Warned",
]


class Operation(StrEnum):
    """Where a tensor's values come from."""

    COPY = "COPY"
    LORA = "LORA"
    DORA = "DORA"
    REPLACE = "REPLACE"
    ROWS = "ROWS"
    ADD = "ADD"
    UNTIE = "UNTIE"


WHOLE = frozenset({Operation.COPY, Operation.UNTIE, Operation.REPLACE, Operation.ADD})
"""Operations whose values are those of one stored tensor."""


class Geometry(StrEnum):
    """How A and B make a delta of the tensor's shape on disk."""

    LINEAR = "linear"  # Δ = B·A            W [out, in]
    CONV1D = "conv1d"  # Δ = (B·A)ᵀ         W [in, out]
    EMBEDDING = "embedding"  # Δ = (B·A)ᵀ   W [vocabulary, width]
    BIAS = "bias"  # Δ = B.bias             b [out]
    EXPERTS = "experts"  # Δ[e] = B[e]·A[e]                        W [experts, out, in]
    EXPERTS_TRANSPOSED = "experts_transposed"  # Δ[e] = (B[e]·A[e])ᵀ  W [experts, in, out]


@dataclass(frozen=True, kw_only=True)
class Ref:
    """A tensor of an adapter's file."""

    adapter: int
    key: str

    def as_json(self) -> dict[str, Any]:
        return {"adapter": self.adapter, "key": self.key}


@dataclass(frozen=True, kw_only=True)
class ExpertPart:
    """Rows of one expert's Δ, where one parameter in memory is a tensor for each expert (and projection) on disk."""

    expert: int
    start: int
    stop: int

    def as_json(self) -> dict[str, int]:
        return {"expert": self.expert, "start": self.start, "stop": self.stop}


@dataclass(frozen=True, kw_only=True)
class Term:
    """coefficient · scale · (B·A), one adapter's part of a delta. For a bias `a` is "" and `b` the vector.

    Of several experts stored together A is [experts · rank, in], the expert outer, and B [out, rank · experts], the expert fastest.
    """

    adapter: int
    a: str
    b: str
    rank: int
    scale: float
    coefficient: float
    geometry: Geometry
    experts: int = 1
    part: ExpertPart | None = None
    """None: Δ has the whole tensor's shape."""

    def as_json(self) -> dict[str, Any]:
        fused = {"experts": self.experts} if self.experts > 1 else {}
        part = {"part": self.part.as_json()} if self.part is not None else {}
        return {
            "adapter": self.adapter,
            "a": self.a,
            "b": self.b,
            "rank": self.rank,
            "scale": self.scale,
            "coefficient": self.coefficient,
            "geometry": str(self.geometry),
            **fused,
            **part,
        }


@dataclass(frozen=True, kw_only=True)
class Combination:
    """How a step's terms become one delta where that is not their sum; their coefficients are then the adapters' weights."""

    strategy: Strategy
    scale: float
    """On the combined delta."""
    t: float | None = None
    """slerp alone."""
    density: float | None = None
    """ties and dare."""
    seed: int | None = None
    """dare alone."""

    @property
    def elementwise(self) -> bool:
        """Whether each element is decided by itself, so that the delta is not low-rank."""
        return self.strategy in ELEMENTWISE

    def as_json(self) -> dict[str, Any]:
        numbers = {"t": self.t, "density": self.density, "seed": self.seed}
        said = {name: value for name, value in numbers.items() if value is not None}
        return {"strategy": str(self.strategy), "scale": self.scale, **said}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a tensor that are replaced by the rows of an adapter's tensor."""

    indices: tuple[int, ...]
    ref: Ref

    def as_json(self) -> dict[str, Any]:
        return {"indices": list(self.indices), **self.ref.as_json()}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor of an output file: what its header says."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One tensor of the result; encoded, it is several tensors of the file."""

    name: str
    operation: Operation
    dtype: str
    shape: tuple[int, ...]
    source: str | None
    """The base tensor it starts from; None when it starts from an adapter's."""
    source_dtype: str = ""
    """The dtype of what it starts from."""
    terms: tuple[Term, ...] = ()
    combination: Combination | None = None
    """None: the terms are added."""
    magnitude: Ref | None = None
    replacement: Ref | None = None
    """The adapter's whole tensor that it starts from instead of the base's."""
    rows: Rows | None = None
    encoding: str = ""
    """Format of a quantized tensor, as `--quantization` spells it; "" stores it as itself, in its dtype."""
    encoded: tuple[Stored, ...] = ()
    """What a quantized tensor is stored as."""

    @property
    def stored(self) -> tuple[Stored, ...]:
        """Its tensors in the output."""
        return self.encoded or (Stored(name=self.name, dtype=self.dtype, shape=self.shape),)

    @property
    def size(self) -> int:
        """Bytes in the output."""
        return sum(one.size for one in self.stored)

    @property
    def elementwise(self) -> bool:
        """Whether its delta is combined element by element and not low-rank."""
        return self.combination is not None and self.combination.elementwise

    def combined(self) -> Combination:
        """The combination of a step that has one."""
        if self.combination is None:
            raise AssertionError(f"{self.name} is a plain sum")
        return self.combination

    @property
    def is_plain_copy(self) -> bool:
        """Whether its bytes are those of the tensor it starts from."""
        return self.operation in WHOLE and self.dtype == self.source_dtype and not self.encoded

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "name": self.name,
            "operation": str(self.operation),
            "dtype": self.dtype,
            "shape": list(self.shape),
        }
        if self.source not in {None, self.name}:
            out["source"] = self.source
        if self.source_dtype not in {"", self.dtype}:
            out["sourceDtype"] = self.source_dtype
        if self.terms:
            out["terms"] = [term.as_json() for term in self.terms]
        if self.combination is not None:
            out["combination"] = self.combination.as_json()
        for name, ref in (("magnitude", self.magnitude), ("replacement", self.replacement), ("rows", self.rows)):
            if ref is not None:
                out[name] = ref.as_json()
        if self.encoding:
            out["encoding"] = self.encoding
            out["stored"] = [one.as_json() for one in self.encoded]
        return out


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """One file of the output, its steps in the order of their data."""

    file: str
    steps: tuple[Step, ...]

    @property
    def data_bytes(self) -> int:
        return sum(step.size for step in self.steps)


@dataclass(frozen=True, kw_only=True)
class Warned:
    """Something a person should know and that is no reason to stop."""

    code: str
    message: str

    def as_json(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole output."""

    shards: tuple[ShardPlan, ...]
    config_changes: Mapping[str, Any]
    """Fields of config.json that change; None removes one."""
    warnings: tuple[Warned, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(step for shard in self.shards for step in shard.steps)

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(str(step.operation) for step in self.steps)
        return {str(operation): found[str(operation)] for operation in Operation if found[str(operation)]}

    @property
    def data_bytes(self) -> int:
        return sum(shard.data_bytes for shard in self.shards)

    def as_json(self) -> dict[str, Any]:
        return {
            "schemaVersion": 1,
            "counts": self.counts,
            "shards": [
                {"file": shard.file, "tensors": [step.as_json() for step in shard.steps]} for shard in self.shards
            ],
            "configChanges": dict(self.config_changes),
            "warnings": [warning.as_json() for warning in self.warnings],
        }

    @property
    def digest(self) -> str:
        """sha256 of the plan."""
        return f"sha256:{hashlib.sha256(canonical(self.as_json())).hexdigest()}"

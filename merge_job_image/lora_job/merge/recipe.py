"""What is asked for, resolved: the part of a build that decides its bytes, and the hash that names the build."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = [
    "ELEMENTWISE",
    "ENGINE_VERSION",
    "OutputDtype",
    "Quantization",
    "Recipe",
    "Strategy",
    "build_hash",
    "canonical",
]

ENGINE_VERSION = "4"
"""Part of every build hash: it changes when the same recipe would give other bytes."""
MOST_ADAPTERS = 8


class Strategy(StrEnum):
    """How the deltas of several adapters are combined."""

    LINEAR = "linear"
    SLERP = "slerp"
    TASK_ARITHMETIC = "task_arithmetic"
    TIES = "ties"
    DARE_LINEAR = "dare_linear"
    DARE_TIES = "dare_ties"


ELEMENTWISE = frozenset({Strategy.TIES, Strategy.DARE_LINEAR, Strategy.DARE_TIES})
"""Strategies that decide about each element by itself; what they make of low-rank deltas is not low-rank."""


class OutputDtype(StrEnum):
    """What floating-point tensors are stored as; auto keeps each tensor's own."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Quantization(StrEnum):
    """How the result is encoded."""

    NONE = "none"
    BNB_NF4 = "bnb-nf4"
    BNB_INT8 = "bnb-int8"
    FP8_DYNAMIC = "fp8-dynamic"
    W4A16 = "w4a16"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number that takes part."""

    strategy: Strategy = Strategy.LINEAR
    weights: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    t: float = 0.5
    density: float = 0.5
    seed: int = 0
    dtype: OutputDtype = OutputDtype.AUTO
    quantization: Quantization = Quantization.NONE
    allowed_chat_template: str = ""
    """sha256 in hex of a template that may replace the base's."""

    def as_json(self) -> dict[str, Any]:
        return {
            "strategy": str(self.strategy),
            "weights": list(self.weights),
            "scale": self.scale,
            "t": self.t,
            "density": self.density,
            "seed": self.seed,
            "dtype": str(self.dtype),
            "quantization": str(self.quantization),
            "allowedChatTemplate": self.allowed_chat_template,
        }

    def __post_init__(self) -> None:
        problem = next(_problems(self), None)
        if problem is not None:
            raise Refused(Reason.INVALID_OPTION, problem)


def _problems(recipe: Recipe) -> Iterator[str]:
    """What no merge can follow."""
    count, strategy = len(recipe.weights), recipe.strategy
    if not 1 <= count <= MOST_ADAPTERS:
        yield f"--adapter: {count} adapters; expected one to {MOST_ADAPTERS}"
    bad = next((weight for weight in recipe.weights if not math.isfinite(weight)), None)
    if bad is not None:
        yield f"--adapter: weight {bad}; expected a finite number"
    if not math.isfinite(recipe.scale):
        yield f"--scale {recipe.scale}: expected a finite number"
    if not 0.0 <= recipe.t <= 1.0:
        yield f"--t {recipe.t:g}: expected 0 (the first adapter) to 1 (the second)"
    if not 0.0 <= recipe.density <= 1.0:
        yield f"--density {recipe.density:g}: expected a share above 0 and up to 1"
    if recipe.density == 0.0 and strategy in ELEMENTWISE:
        yield f"--density 0: {strategy} would keep nothing of any adapter; expected a share above 0 and up to 1"
    if not 0 <= recipe.seed < 2**63:
        yield f"--seed {recipe.seed}: expected a whole number from 0 to 2⁶³ − 1"
    if strategy is Strategy.SLERP and count > 2:
        yield (
            f"--strategy slerp: {count} adapters; it turns from the first to the second of exactly two: "
            "give two, or choose linear, ties or dare_ties"
        )


def canonical(value: object) -> bytes:
    """JSON that is the same for the same value everywhere."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def build_hash(recipe: Recipe, *, base: str, adapters: Sequence[str]) -> str:
    """First 16 hex digits over recipe, source digests and engine version."""
    content: Mapping[str, Any] = {
        "recipe": recipe.as_json(),
        "sources": {"base": base, "adapters": list(adapters)},
        "engineVersion": ENGINE_VERSION,
    }
    return hashlib.sha256(canonical(content)).hexdigest()[:16]

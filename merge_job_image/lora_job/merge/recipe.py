"""What is asked for, resolved: the part of a build that decides its bytes, and the hash that names the build."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lora_job.outcome import Refused
from lora_job.reasons import Reason

__all__ = ["ENGINE_VERSION", "OutputDtype", "Quantization", "Recipe", "Strategy", "build_hash", "canonical"]

ENGINE_VERSION = "1"
"""Part of every build hash: it changes when the same recipe would give other bytes."""
SMALLEST_SUM = 1e-6


class Strategy(StrEnum):
    """How the deltas of several adapters are combined."""

    LINEAR = "linear"
    SLERP = "slerp"
    TASK_ARITHMETIC = "task_arithmetic"
    TIES = "ties"
    DARE_LINEAR = "dare_linear"
    DARE_TIES = "dare_ties"


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

    @property
    def coefficients(self) -> tuple[float, ...]:
        """What each adapter's delta is multiplied with, in the strategies that are a weighted sum.

        Linear with several adapters normalises its weights to sum 1; a single one is taken as it is, with its weight.
        """
        if self.strategy is not Strategy.LINEAR or len(self.weights) == 1:
            return tuple(weight * self.scale for weight in self.weights)
        total = math.fsum(self.weights)
        if abs(total) < SMALLEST_SUM:
            raise Refused(
                Reason.INVALID_OPTION,
                f"--adapter: the weights {', '.join(f'{weight:g}' for weight in self.weights)} sum to {total:g}, "
                "and linear divides by their sum; use task_arithmetic, which does not",
            )
        return tuple(weight / total * self.scale for weight in self.weights)


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

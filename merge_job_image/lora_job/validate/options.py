"""What a validation is asked to do, parsed once at the boundary."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lora_job.outcome import Refused
from lora_job.validate.gates import Policy
from lora_job.validate.score import DEFAULT_WEIGHTS, Dimension
from lora_job.validate.selection import Mode

DEFAULT_TEST_QUERY_COUNT = 20
DEFAULT_ITERATIONS = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """One validation."""

    model: Path
    base: Path | None = None
    """None takes merge.json's."""
    adapters: tuple[Path, ...] = ()
    """Empty takes merge.json's."""
    mode: Mode = Mode.BASIC
    suites: tuple[Path, ...] = ()
    test_query_count: int = DEFAULT_TEST_QUERY_COUNT
    iterations: int = DEFAULT_ITERATIONS
    weights: Mapping[Dimension, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    policy: Policy = field(default_factory=Policy)
    allowed_template: str = ""
    """sha256 of a chat template that may differ from the base's."""
    cache: Path | None = None
    """Where base results are kept; None keeps none."""
    on_workstation: bool = True
    """Without a base a workstation may still pass (unpaired); a Job may not."""
    identity: str = ""


def parse_weights(text: str) -> dict[Dimension, float]:
    """`basic=0.4,domain=0.3,safety=0.2,performance=0.1`: all four, not negative, sum 1 within 1e-6."""
    found: dict[Dimension, float] = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if not equals or name not in list(Dimension):
            raise Refused(
                "InvalidWeights",
                f"--weights: expected NAME=NUMBER with NAME one of {', '.join(Dimension)}, found {part!r}",
            )
        try:
            value = float(number)
        except ValueError:
            raise Refused("InvalidWeights", f"--weights: {name}: expected a number, found {number!r}") from None
        if Dimension(name) in found:
            raise Refused("InvalidWeights", f"--weights: {name} is given twice")
        found[Dimension(name)] = value
    return check_weights(found, where="--weights")


def check_weights(weights: Mapping[Dimension, float], *, where: str) -> dict[Dimension, float]:
    """The same rules for weights from any place."""
    missing = [name for name in Dimension if name not in weights]
    if missing:
        raise Refused(
            "InvalidWeights", f"{where}: expected all of {', '.join(Dimension)}, missing {', '.join(missing)}"
        )
    bad = [name for name, value in weights.items() if not (math.isfinite(value) and value >= 0)]
    if bad:
        raise Refused("InvalidWeights", f"{where}: {bad[0]}: expected a number of at least 0, found {weights[bad[0]]}")
    total = sum(weights.values())
    if abs(total - 1) > 1e-6:
        raise Refused("InvalidWeights", f"{where}: expected a sum of 1, found {total:g}")
    return dict(weights)


def check_unit(value: float, *, where: str) -> float:
    """A threshold."""
    if not 0 <= value <= 1:
        raise Refused("InvalidThreshold", f"{where}: expected a number from 0 to 1, found {value:g}")
    return value

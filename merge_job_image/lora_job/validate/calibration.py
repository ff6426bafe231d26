"""Does the model's stated probability mean what it says? Measured on multiple choice, in mode comprehensive.

Answers are grouped by the probability the model gave to the letter it chose; in an honest model the share of right
answers in a group equals the group's mean probability. The expected calibration error is Σ |share − probability|
weighted by group size (Naeini et al. 2015). Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_job.validate.judge import Row

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Answers whose probability lies in one tenth of [0, 1]; empty tenths are left out."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float

    def as_json(self) -> dict[str, float]:
        return {
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "confidence": round(self.confidence, 4),
            "accuracy": round(self.accuracy, 4),
        }


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The error and what it is made of."""

    error: float
    bins: tuple[Bin, ...]

    def as_json(self) -> dict[str, object]:
        return {"error": round(self.error, 4), "bins": [one.as_json() for one in self.bins]}


def calibrate(rows: Sequence[Row]) -> Calibration | None:
    """The candidate's calibration; None when nothing was chosen."""
    chosen = [(row.candidate.confidence, row.candidate.score) for row in rows if row.candidate.confidence is not None]
    if not chosen:
        return None
    groups: dict[int, list[tuple[float, float]]] = {}
    for confidence, right in chosen:
        groups.setdefault(min(BINS - 1, int(confidence * BINS)), []).append((confidence, right))
    bins = tuple(_bin(place, members) for place, members in sorted(groups.items()))
    error = sum(one.n * abs(one.accuracy - one.confidence) for one in bins) / len(chosen)
    return Calibration(error=error, bins=bins)


def _bin(place: int, members: Sequence[tuple[float, float]]) -> Bin:
    n = len(members)
    return Bin(
        low=place / BINS,
        high=(place + 1) / BINS,
        n=n,
        confidence=sum(confidence for confidence, _ in members) / n,
        accuracy=sum(right for _, right in members) / n,
    )

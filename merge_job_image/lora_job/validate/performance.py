"""Speed and memory, base and candidate in alternating blocks on the same machine.

Fixed prompt and answer lengths, greedy, the first pair dropped as warm-up; which of the two goes first alternates, so
that a machine that slows down or speeds up does so for both. Absolute numbers are reported, the score is the ratio.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_job.validate import statistics
from lora_job.validate.harness import Subject
from lora_job.validate.loading import weights_bytes

PROMPT_TOKENS = 64
NEW_TOKENS = 24
QUANTILES = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
_TEXT = (
    "Explain in plain words how a listed company pays a dividend and what an investor should check before the date. "
)

Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One timed answer."""

    ttft: float
    """Seconds to the first token."""
    seconds: float
    """Seconds for all tokens."""
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, kw_only=True)
class Speed:
    """All timed answers of one model."""

    runs: tuple[Run, ...]
    weights_bytes: int
    peak_allocated: int | None
    """CUDA only."""
    peak_reserved: int | None
    """CUDA only."""

    @property
    def tokens_per_second(self) -> float:
        return statistics.mean([run.tokens_per_second for run in self.runs])

    def latency(self, q: float) -> float:
        """A quantile of the seconds per answer."""
        return statistics.quantile(sorted(run.seconds for run in self.runs), q)

    def as_json(self) -> dict[str, object]:
        return {
            "tokensPerSecond": round(self.tokens_per_second, 3),
            "ttftSeconds": round(statistics.quantile(sorted(run.ttft for run in self.runs), 0.5), 5),
            "latencySeconds": {name: round(self.latency(q), 5) for name, q in QUANTILES.items()},
            "memoryBytes": {
                "weights": self.weights_bytes,
                "peakAllocated": self.peak_allocated,
                "peakReserved": self.peak_reserved,
            },
            "runs": [{"ttft": round(run.ttft, 5), "seconds": round(run.seconds, 5)} for run in self.runs],
        }


def prompt_ids(tokenizer: Any) -> torch.Tensor:
    """Exactly PROMPT_TOKENS tokens of ordinary text."""
    ids: list[int] = tokenizer.encode(_TEXT * 8, add_special_tokens=False)
    while len(ids) < PROMPT_TOKENS:
        ids = ids + ids
    return torch.tensor([ids[:PROMPT_TOKENS]])


def _wait(model: Any) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def timed_answer(model: Any, ids: torch.Tensor, *, new_tokens: int = NEW_TOKENS) -> Run:
    """Greedy decoding token by token, so that the first token can be timed; the end-of-text token does not stop it."""
    ids = ids.to(model.device)
    with torch.inference_mode():
        _wait(model)
        started = time.perf_counter()
        out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1:].argmax(-1)
        _wait(model)
        first = time.perf_counter() - started
        for _ in range(new_tokens - 1):
            out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        _wait(model)
    return Run(ttft=first, seconds=time.perf_counter() - started, tokens=new_tokens)


def speed_of(subject: Subject, runs: Sequence[Run]) -> Speed:
    device = subject.model.device
    cuda = device.type == "cuda"
    return Speed(
        runs=tuple(runs),
        weights_bytes=weights_bytes(subject.model),
        peak_allocated=torch.cuda.max_memory_allocated(device) if cuda else None,
        peak_reserved=torch.cuda.max_memory_reserved(device) if cuda else None,
    )


def measure(subjects: Sequence[Subject], *, iterations: int, tick: Tick) -> list[Speed]:
    """Speeds of all subjects, interleaved; `tick` is told of every finished pair, the warm-up included."""
    prompts = [prompt_ids(subject.tokenizer) for subject in subjects]
    runs: list[list[Run]] = [[] for _ in subjects]
    for iteration in range(iterations + 1):
        places = list(range(len(subjects)))
        for place in places if iteration % 2 else reversed(places):
            run = timed_answer(subjects[place].model, prompts[place])
            if iteration:
                runs[place].append(run)
        tick(1)
    return [speed_of(subject, own) for subject, own in zip(subjects, runs, strict=True)]


def ratios(candidate: Speed, base: Speed) -> list[float]:
    """Candidate / base tokens per second, pair by pair."""
    return [
        own.tokens_per_second / other.tokens_per_second for own, other in zip(candidate.runs, base.runs, strict=True)
    ]

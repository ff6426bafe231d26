"""Log-likelihoods of continuations: how likely a model finds given tokens after given others.

lm-eval calculates the logits of every position over the whole vocabulary and throws nearly all of them away. Here only the positions of
continuations are: the same sums in two thirds of the time, and without the gigabytes. Requests that need the same input (the letters of
one question) share a row, and all rows share what they begin with.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_job.validate.shared_start import SharedStart

__all__ = ["Request", "last_logits", "weigh"]

ROWS = 8
Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Tokens, and those whose likelihood after them is asked for; neither is empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    def inputs(self, *, longest: int) -> tuple[int, ...]:
        """What the model is given: all but the last token, cut from the left where it is too long."""
        return (self.context + self.continuation)[-(longest + 1) :][:-1]


def weigh(model: Any, requests: Sequence[Request], *, longest: int, tick: Tick) -> list[float]:
    """Natural-log likelihoods, in the order of the requests; `tick` is told of the rows of every forward pass.

    `longest` is how many tokens the model takes; a continuation is never longer.
    """
    sharing: dict[tuple[int, ...], list[int]] = {}
    for place, request in enumerate(requests):
        sharing.setdefault(request.inputs(longest=longest), []).append(place)
    order = _by_length(sharing)
    longest_asked = {row: max(len(requests[place].continuation) for place in places) for row, places in sharing.items()}
    start = SharedStart.of(model, order, most=min((len(row) - longest_asked[row] for row in order), default=0))
    found = [0.0] * len(requests)
    for rows in _batches(order):
        asked = [[requests[place].continuation for place in sharing[row]] for row in rows]
        for row, values in zip(rows, _weigh_rows(model, rows, asked, start=start), strict=True):
            for place, value in zip(sharing[row], values, strict=True):
                found[place] = value
        tick(len(rows))
    return found


def last_logits(model: Any, rows: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """The logits after each row's last token, in the order of the rows."""
    order = _by_length(set(rows))
    start = SharedStart.of(model, order, most=min((len(row) - 1 for row in order), default=0))
    found: dict[tuple[int, ...], torch.Tensor] = {}
    for batch in _batches(order):
        wanted = sorted({len(row) - 1 for row in batch})
        logits = _logits_at(model, batch, wanted, start=start).cpu()
        found |= {row: logits[place, wanted.index(len(row) - 1)] for place, row in enumerate(batch)}
    return [found[row] for row in rows]


def _by_length(rows: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Rows of like length share a batch, the longest first: what does not fit the memory fails at once."""
    return sorted(rows, key=lambda row: (-len(row), row))


def _batches(order: Sequence[tuple[int, ...]]) -> Iterator[Sequence[tuple[int, ...]]]:
    return (order[place : place + ROWS] for place in range(0, len(order), ROWS))


def _logits_at(
    model: Any, rows: Sequence[tuple[int, ...]], wanted: Sequence[int], *, start: SharedStart | None
) -> torch.Tensor:
    """float32 logits [row, place in `wanted`, token]; the first row is the longest, and no position lies within `start`.

    Padding stands on the right, where a causal model's earlier positions do not see it.
    """
    known = len(start.tokens) if start is not None else 0
    width = len(rows[0])
    ids = torch.tensor([row[known:] + (0,) * (width - len(row)) for row in rows], device=model.device)
    positions = torch.tensor([position - known for position in wanted], device=model.device)
    continued = {} if start is None else {"past_key_values": start.cache_for(len(rows))}
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, logits_to_keep=positions, **continued).logits.float()
    return logits


def _weigh_rows(
    model: Any,
    rows: Sequence[tuple[int, ...]],
    asked: Sequence[Sequence[tuple[int, ...]]],
    *,
    start: SharedStart | None,
) -> list[list[float]]:
    """One forward pass."""
    wanted = sorted(
        {
            position
            for row, continuations in zip(rows, asked, strict=True)
            for one in continuations
            for position in range(len(row) - len(one), len(row))
        }
    )
    likelihoods = torch.log_softmax(_logits_at(model, rows, wanted, start=start), dim=-1).cpu()
    column = {position: place for place, position in enumerate(wanted)}
    return [
        [
            float(sum(likelihoods[place, column[len(row) - len(one) + step], token] for step, token in enumerate(one)))
            for one in continuations
        ]
        for place, (row, continuations) in enumerate(zip(rows, asked, strict=True))
    ]

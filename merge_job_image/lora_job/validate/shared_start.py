"""What all rows of a call begin with is calculated once: a chat template puts the same words before every question.

    <|im_start|>system … <|im_end|> <|im_start|>user      What is a dividend? <|im_end|> …
    └─ the start: its keys and values, once ───────┘      └─ the rest: every row ─────────

Nearly half of the tokens of short questions are the template's. A causal model sees the same either way; sums are rounded differently in
their last bit. Models that keep anything but plain keys and values (sliding windows, recurrent states) calculate every row whole.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

__all__ = ["SharedStart", "common_length"]

# Below this an extra forward pass costs more than it saves.
WORTH_IT = 8


def common_length(rows: Sequence[Sequence[int]], *, most: int) -> int:
    """How many tokens all rows begin with, at most `most`."""
    ordered = sorted(tuple(row) for row in rows)
    first, last = ordered[0], ordered[-1]  # what these two share, those between them share too
    length = 0
    while length < min(most, len(first), len(last)) and first[length] == last[length]:
        length += 1
    return length


class SharedStart:
    """The keys and values of some tokens, for any number of rows."""

    def __init__(self, tokens: Sequence[int], cache: DynamicCache) -> None:
        self.tokens = tuple(tokens)
        self._cache = cache

    @classmethod
    def of(cls, model: Any, rows: Sequence[Sequence[int]], *, most: int) -> "SharedStart | None":
        """What at least two rows begin with; None where that is little, or the model cannot go on from it."""
        if len(rows) < 2 or (length := common_length(rows, most=most)) < WORTH_IT:
            return None
        tokens = rows[0][:length]
        with torch.inference_mode():
            ids = torch.tensor([list(tokens)], device=model.device)
            cache: Any = getattr(model(input_ids=ids, use_cache=True, logits_to_keep=1), "past_key_values", None)
        if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
            return None
        return cls(tokens, cache)

    def cache_for(self, rows: int) -> DynamicCache:
        """A copy that so many rows may be appended to."""
        with torch.inference_mode():
            cache = copy.deepcopy(self._cache)
            cache.batch_repeat_interleave(rows)
        return cache

"""Requests that reach one revision whatever the weights: those with a certain header or cookie (A/B test)."""

from dataclasses import dataclass

from lora_operator.api.strategy import Match

__all__ = ["Forced"]


@dataclass(frozen=True)
class Forced:
    """Which requests, and to whom."""

    revision: str
    match: Match

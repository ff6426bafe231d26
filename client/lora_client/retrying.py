"""How often and how long something is tried again: exponential backoff with full jitter, inside one budget of time.

A server that says Retry-After is believed. Only calls whose repetition is harmless are repeated; who decides that is api.py.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

__all__ = ["Backoff"]


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """`attempts` tries at most; before try n+1 a random time up to min(cap, base·2ⁿ) seconds."""

    attempts: int = 6
    base_seconds: float = 0.2
    cap_seconds: float = 5.0
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)

    async def pause(self, attempt: int, *, after: float | None = None) -> None:
        """Waits before try `attempt` + 1 (the first try is 1); `after` is what the server asked for."""
        ceiling = min(self.cap_seconds, self.base_seconds * 2**attempt)
        await self.sleep(max(after or 0.0, ceiling * self.random()))

"""A steady open-loop stream of requests through the Gateway, to see whether a change of version loses one.

Open loop: a request starts when its time has come, whether or not earlier ones have answered, so a stall shows as failures
and not as silence.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

__all__ = ["Load", "LoadResult"]


@dataclass
class LoadResult:
    """What became of every request that was started."""

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds

    @property
    def failed(self) -> int:
        """Requests without a proper answer."""
        return sum(self.failures.values())


class Load:
    """`async with Load(...) as result:` sends until the block ends, then waits for the answers that are still due."""

    def __init__(self, *, url: str, host: str, model: str, every: float) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"Host": host}
        self._body = {
            "model": model,
            "messages": [{"role": "user", "content": "T+2?"}],
            "max_tokens": 4,
            "temperature": 0,
        }
        self._every = every
        self._requests: set[asyncio.Task[None]] = set()
        self.result = LoadResult()

    async def __aenter__(self) -> LoadResult:
        self._client = httpx.AsyncClient(timeout=120, trust_env=False)
        self._sender = asyncio.create_task(self._send_steadily())
        return self.result

    async def __aexit__(self, *_: object) -> None:
        self._sender.cancel()
        await asyncio.gather(self._sender, *self._requests, return_exceptions=True)
        await self._client.aclose()

    async def _send_steadily(self) -> None:
        while True:
            request = asyncio.create_task(self._send())
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)
            await asyncio.sleep(self._every)

    async def _send(self) -> None:
        started = time.monotonic()
        try:
            reply = await self._client.post(self._url, headers=self._headers, json=self._body)
            if reply.status_code == httpx.codes.OK and reply.json()["choices"]:
                self.result.answered += 1
            else:
                self.result.failures[f"HTTP {reply.status_code}"] += 1
        except httpx.HTTPError as error:
            self.result.failures[type(error).__name__] += 1
        self.result.slowest = max(self.result.slowest, time.monotonic() - started)

"""An open-loop client of a served model: answers by version, every failed request, every broken stream.

Open loop: a request starts when its time has come, whether or not earlier ones have answered, so that a stall shows as
failures and not as silence. Every tenth request is a stream.
"""

import asyncio
import json
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

__all__ = ["Traffic"]

STREAM_EVERY = 10


@dataclass
class Seen:
    """What became of the requests so far."""

    answers: Counter[str] = field(default_factory=Counter)  # by what was answered
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    failures: Counter[str] = field(default_factory=Counter)
    spans: dict[str, tuple[datetime, datetime]] = field(
        default_factory=dict
    )  # first and last of each answer and failure
    streams: int = 0

    def answered(self, answer: str) -> None:
        """A request was."""
        self.answers[answer] += 1
        self.recent.append(answer)
        self._note(answer)

    def failed(self, reason: str) -> None:
        """A request was lost, or a stream broke."""
        self.failures[reason] += 1
        self._note(reason)

    @property
    def lost(self) -> str:
        """How many requests were lost, when and why; empty: none."""
        told = ((reason, count, *self.spans[reason]) for reason, count in self.failures.items())
        return "; ".join(
            f"{count} × {reason} ({first:%H:%M:%S.%f} to {last:%H:%M:%S.%f})" for reason, count, first, last in told
        )

    def _note(self, what: str) -> None:
        now = datetime.now(UTC)
        self.spans[what] = (self.spans.get(what, (now, now))[0], now)


class Traffic:
    """`with Traffic(...) as traffic:` sends from a thread of its own until the block ends, then waits for what is still due."""

    def __init__(self, *, url: str, host: str, model: str, every: float) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"Host": host}
        self._model = model
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send_steadily()))
        self.seen = Seen()

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def only(self, answer: str) -> bool:
        """Whether the last answers were all this one."""
        return len(self.seen.recent) == self.seen.recent.maxlen and set(self.seen.recent) == {answer}

    def shares(self, since: Counter[str]) -> dict[str, float]:
        """Share of each answer since a copy of `seen.answers` was taken."""
        counts = self.seen.answers - since
        total = max(1, counts.total())
        return {answer: count / total for answer, count in counts.items()}

    async def _send_steadily(self) -> None:
        due: set[asyncio.Task[None]] = set()
        number = 0
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            while not self._over.is_set():
                number += 1
                send = self._stream if number % STREAM_EVERY == 0 else self._ask
                request = asyncio.create_task(self._counted(send, client))
                due.add(request)
                request.add_done_callback(due.discard)
                await asyncio.sleep(self._every)
            await asyncio.gather(*due)

    async def _counted(self, send, client: httpx.AsyncClient) -> None:  # type: ignore[no-untyped-def]
        try:
            await send(client)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            self.seen.failed(f"{send.__name__}: {type(error).__name__}: {error}")

    def _body(self, *, stream: bool) -> dict[str, object]:
        return {"model": self._model, "messages": [{"role": "user", "content": "T+2?"}], "stream": stream}

    async def _ask(self, client: httpx.AsyncClient) -> None:
        reply = await client.post(self._url, headers=self._headers, json=self._body(stream=False))
        if reply.status_code != httpx.codes.OK:
            raise ValueError(f"HTTP {reply.status_code} {reply.text[:100]}")
        self.seen.answered(str(reply.json()["choices"][0]["message"]["content"]))

    async def _stream(self, client: httpx.AsyncClient) -> None:
        words: list[str] = []
        started = datetime.now(UTC)
        try:
            await self._read_stream(client, words)
        except httpx.HTTPError as error:
            now = datetime.now(UTC)
            raise ValueError(
                f"a stream of {sorted(set(words))}, {len(words)} words, {started:%H:%M:%S.%f} to {now:%H:%M:%S.%f}, broke: {error}"
            ) from error
        if len(set(words)) != 1:
            raise ValueError(f"a stream ended early, or two versions answered it: {sorted(set(words))}")
        self.seen.streams += 1

    async def _read_stream(self, client: httpx.AsyncClient, words: list[str]) -> None:
        ended = False
        async with client.stream("POST", self._url, headers=self._headers, json=self._body(stream=True)) as reply:
            if reply.status_code != httpx.codes.OK:
                raise ValueError(f"HTTP {reply.status_code}")
            async for line in reply.aiter_lines():
                ended = ended or line == "data: [DONE]"
                if line.startswith("data: {"):
                    words.append(json.loads(line[6:])["choices"][0]["delta"]["content"])
        if not ended:
            raise ValueError(f"a stream ended after {len(words)} words")

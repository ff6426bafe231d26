"""Following a build and a rollout to their end: bars on a terminal, otherwise one line per change.

    status of both objects, twice a second ─┐
    log of the Job that runs now ───────────┴─► the same page drawn anew ─► verdict, exit code

Reads only. Whoever stops it stops nothing in the cluster.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lora_client.errors import ClientError, TimedOut
from loractl.explain import current_job
from loractl.output import Output, coloured
from loractl.verdict import Verdict, verdict_of_pair

if TYPE_CHECKING:
    from lora_client.api import Api
    from lora_client.logs import Progress

__all__ = ["Sight", "follow"]

LOOK_SECONDS = 0.5
Raw = dict[str, Any]


@dataclass
class Sight:
    """What is known at one moment; `stages` by container and stage, in the order in which they began."""

    deployment: Any = None  # raw, or None: there is none
    adapter: Any = None
    stages: "dict[str, Progress]" = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """How it stands."""
        return verdict_of_pair(self.deployment, self.adapter)


Look = Callable[[], Awaitable[tuple[Any, Any]]]


async def follow(
    api: "Api",
    out: Output,
    look: Look,
    *,
    until: Callable[[Sight], Verdict] = lambda sight: sight.verdict,
    seconds: float | None = None,
) -> Verdict:
    """Draws until `until` says that it is over; its verdict.

    Raises:
        TimedOut: it was not over after `seconds` (None: however long it takes); it goes on.
    """
    sight = Sight()
    try:
        async with asyncio.timeout(seconds):
            return await _drawn(sight, api, out, look, until)
    except TimeoutError:
        raise TimedOut(f"not over after {seconds:g} s, it goes on: {sight.verdict.sentence}") from None


async def _drawn(sight: Sight, api: "Api", out: Output, look: Look, until: Callable[[Sight], Verdict]) -> Verdict:
    reader = _JobReader(api)
    screen = _Screen(out)
    with screen:
        try:
            while True:
                sight.deployment, sight.adapter = await look()
                reader.read(sight)
                screen.show(sight)
                verdict = until(sight)
                if verdict.over:
                    return verdict
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await reader.stop()


class _JobReader:
    """Reads the log of the Job that counts now, one Job after another."""

    def __init__(self, api: "Api") -> None:
        self._api = api
        self._job = ""
        self._task: asyncio.Task[None] | None = None

    def read(self, sight: Sight) -> None:
        """Starts with a new Job when there is one."""
        job = current_job(sight.adapter) if sight.adapter is not None else ""
        if not job or job == self._job:
            return
        if self._task is not None:
            self._task.cancel()
        self._job = job
        sight.stages.clear()
        self._task = asyncio.create_task(self._lines(job, sight))

    async def _lines(self, job: str, sight: Sight) -> None:
        from lora_client.logs import job_lines  # noqa: PLC0415 - as aiohttp

        try:
            async for line in job_lines(
                self._api, namespace=sight.adapter["metadata"]["namespace"], job=job, follow=True
            ):
                if line.progress is not None:
                    sight.stages[line.progress.stage] = line.progress
        except ClientError:
            return  # without the right to read logs there are no bars; the status still tells

    async def stop(self) -> None:
        """Ends the reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class _Screen:
    """A live picture on a terminal, lines elsewhere."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._told: set[str] = set()
        self._live: Any = None
        self._context: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> "_Screen":
        if self._out.console.is_terminal:
            from rich.live import Live  # noqa: PLC0415 - only a terminal needs it

            self._live = Live(console=self._out.console, auto_refresh=False, transient=False)
            self._context = self._live
        self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def show(self, sight: Sight) -> None:
        """The newest picture, or what is new in it."""
        from loractl.live import lines_of, picture_of  # noqa: PLC0415 - rich is for pictures, not for --help

        if self._live is not None:
            picture = picture_of(sight.deployment, sight.adapter, sight.stages.values(), now=datetime.now(UTC))
            self._live.update(picture, refresh=True)
            return
        for line in lines_of(sight.deployment, sight.adapter, sight.stages.values()):
            if line not in self._told:
                self._told.add(line)
                self._out.console.print(coloured(line), soft_wrap=True)

"""The pods' own /metrics and the router's, read directly: no other installation is needed, and a figure is as old as the request for it.

Where the settings say how to read the router, it says how many requests there were and how many failed, because it sees those that
reached no pod; the pods say how long answers took, because their buckets are made for that.
"""

import asyncio
from dataclasses import replace

import aiohttp

from lora_operator.core.analysis.comparison import Reading
from lora_operator.core.analysis.counters import ZERO
from lora_operator.core.analysis.router_series import NAMES as ROUTER_NAMES
from lora_operator.core.analysis.router_series import router_counters
from lora_operator.core.analysis.series import Series
from lora_operator.core.analysis.vllm import NAMES, counters_of
from lora_operator.core.plan import Collect, RouterTarget, Target
from lora_operator.telemetry.base import Figures
from lora_operator.telemetry.page import Unread, series_at

__all__ = ["ScrapeSource"]

SECONDS = 5.0
AT_ONCE = 16


class ScrapeSource:
    """Implements telemetry.base.Source."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._timeout = aiohttp.ClientTimeout(total=seconds)

    async def read(self, asked: Collect) -> Figures:
        """All at the same time; one that does not answer holds up no other."""
        async with aiohttp.ClientSession(timeout=self._timeout, trust_env=False) as session:
            if asked.router is None:
                return await _read_pods(session, asked.targets)
            counting = [target for target in asked.targets if target.address]  # the others have no times, and need none
            pods, router = await asyncio.gather(_read_pods(session, counting), _read_router(session, asked.router))
        return _joined(pods, router, timed_by_pods=bool(counting))


async def _read_pods(session: aiohttp.ClientSession, targets: list[Target] | tuple[Target, ...]) -> Figures:
    turns = asyncio.Semaphore(AT_ONCE)
    found = await asyncio.gather(*(_read_pod(session, target, turns) for target in targets))
    pairs = list(zip(targets, found, strict=True))
    return Figures(
        readings={target.pod: said for target, said in pairs if isinstance(said, Reading)},
        problems=tuple(f"pod {target.pod}: {said}" for target, said in pairs if isinstance(said, str)),
    )


async def _read_pod(session: aiohttp.ClientSession, target: Target, turns: asyncio.Semaphore) -> Reading | str:
    """The figures, or why there are none."""
    if not target.address:
        return "its runtime profile has no metricsPath"
    try:
        async with turns:
            counters = counters_of(await series_at(session, target.address, names=NAMES), handlers=target.handlers)
    except Unread as error:
        return str(error)
    if counters is None:
        return f"{target.address} has none of vLLM's request metrics, or not as numbers"
    return Reading(revision=target.revision, counters=counters, created=target.created)


async def _read_router(session: aiohttp.ClientSession, router: RouterTarget) -> Figures:
    """Of each of its processes and each version; all of them or nothing, because a missing part would look like fewer requests."""
    if router.problem:
        return Figures(problems=(f"router: {router.problem}",))
    services = [backend.service for backend in router.backends.values()]
    pages = await asyncio.gather(
        *(series_at(session, address, names=ROUTER_NAMES, about=services) for address in router.addresses),
        return_exceptions=True,
    )
    problems = [f"router: {page}" for page in pages if isinstance(page, Unread)]
    read: dict[str, list[Series]] = {}
    for address, page in zip(router.addresses, pages, strict=True):
        if isinstance(page, list):
            read[address] = page
        elif not isinstance(page, Unread):
            raise page
    found = {
        (address, revision): router_counters(page, backend=backend)
        for address, page in read.items()
        for revision, backend in router.backends.items()
    }
    if not problems and not any(found.values()):
        problems = [f"router: {', '.join(router.addresses)} has no requests of either version yet"]
    if problems:
        return Figures(problems=tuple(problems))
    return Figures(
        readings={
            f"router {address} {revision}": Reading(revision=revision, counters=counters or ZERO)
            for (address, revision), counters in found.items()
        }
    )


def _joined(pods: Figures, router: Figures, *, timed_by_pods: bool) -> Figures:
    """Requests and errors of the router, times and requests in flight of the pods; the router's times where no pod has any to tell."""
    if router.problems:
        return Figures(problems=(*router.problems, *pods.problems))
    timing = {
        pod: replace(reading, counters=replace(reading.counters, requests=0.0, errors=0.0))
        for pod, reading in pods.readings.items()
    }
    counting = {
        name: replace(reading, counters=replace(reading.counters, times={})) if timed_by_pods else reading
        for name, reading in router.readings.items()
    }
    return Figures(readings={**timing, **counting}, problems=pods.problems)

"""The pods' own /metrics, read directly: no other installation is needed, and a figure is as old as the request for it."""

import asyncio

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from lora_operator.core.analysis.comparison import Reading
from lora_operator.core.analysis.vllm import NAMES, Series, counters_of
from lora_operator.core.plan import Collect, Target
from lora_operator.telemetry.base import Figures

__all__ = ["PodSource"]

SECONDS = 5.0
LARGEST = 4 * 1024 * 1024  # bytes of a page; vLLM's is about 100 KiB
AT_ONCE = 16


class PodSource:
    """Implements telemetry.base.Source."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._timeout = aiohttp.ClientTimeout(total=seconds)

    async def read(self, asked: Collect) -> Figures:
        """All pods at the same time; one that does not answer holds up no other."""
        turns = asyncio.Semaphore(AT_ONCE)
        async with aiohttp.ClientSession(timeout=self._timeout, trust_env=False) as session:
            found = await asyncio.gather(*(_read(session, target, turns) for target in asked.targets))
        pairs = zip(asked.targets, found, strict=True)
        problems = tuple(f"pod {target.pod}: {said}" for target, said in pairs if isinstance(said, str))
        readings = {
            target.pod: said for target, said in zip(asked.targets, found, strict=True) if isinstance(said, Reading)
        }
        return Figures(readings=readings, problems=problems)


async def _read(session: aiohttp.ClientSession, target: Target, turns: asyncio.Semaphore) -> Reading | str:
    """The figures, or why there are none."""
    if not target.address:
        return "its runtime profile has no metricsPath"
    try:
        async with turns:
            page = await _page(session, target.address)
        counters = counters_of(_series(page.decode()), handlers=target.handlers)
    except TimeoutError:
        return f"{target.address} does not answer in time"
    except (aiohttp.ClientError, OSError) as error:
        return f"{target.address}: {type(error).__name__}: {error}"[:200]
    except ValueError as error:
        return f"{target.address} gives no figures: {error}"[:200]
    if counters is None:
        return f"{target.address} has none of vLLM's request metrics"
    return Reading(revision=target.revision, counters=counters, created=target.created)


async def _page(session: aiohttp.ClientSession, address: str) -> bytes:
    async with session.get(address) as reply:
        if reply.status != 200:
            raise ValueError(f"HTTP {reply.status}")
        page = bytearray()
        async for part in reply.content.iter_any():
            page += part
            if len(page) > LARGEST:
                raise ValueError(f"more than {LARGEST} bytes")
        return bytes(page)


def _series(page: str) -> list[Series]:
    return [
        Series(name=sample.name, labels=sample.labels, value=float(sample.value))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in NAMES
    ]

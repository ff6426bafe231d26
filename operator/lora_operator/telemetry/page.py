"""One page of metrics over HTTP."""

from collections.abc import Collection

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from lora_operator.core.analysis.series import Series

__all__ = ["LARGEST", "Unread", "series_at"]

LARGEST = 4 * 1024 * 1024  # bytes of a page; vLLM's is about 100 KiB, a router's grows with its routes


class Unread(Exception):
    """Why there are no figures, in words that begin with the address."""


async def series_at(session: aiohttp.ClientSession, address: str, *, names: Collection[str]) -> list[Series]:
    """Its series of these names.

    Raises:
        Unread: it does not answer, or with something else.
    """
    try:
        page = await _page(session, address)
        return _series(page.decode(), names=names)
    except TimeoutError:
        raise Unread(f"{address} does not answer in time") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unread(f"{address}: {type(error).__name__}: {error}"[:200]) from None
    except ValueError as error:
        raise Unread(f"{address} gives no figures: {error}"[:200]) from None


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


def _series(page: str, *, names: Collection[str]) -> list[Series]:
    return [
        Series(name=sample.name, labels=sample.labels, value=float(sample.value))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in names
    ]

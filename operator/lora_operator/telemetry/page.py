"""The lines of a page of metrics that matter, over HTTP.

A router's page has the routes of a whole cluster, and to parse them all would hold up everything else for a second.
"""

from collections.abc import Collection

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from prometheus_client.parser import text_string_to_metric_families

from lora_operator.core.analysis.series import Series

__all__ = ["LARGEST", "Unread", "series_at"]

LARGEST = 4 * 1024 * 1024  # bytes of lines that matter; vLLM's page is about 100 KiB
LONGEST = 256 * LARGEST  # bytes of a page


class Unread(Exception):
    """Why there are no figures, in words that begin with the address."""


async def series_at(
    session: aiohttp.ClientSession, address: str, *, names: Collection[str], about: Collection[str] = ()
) -> list[Series]:
    """Its series of these names; `about`: only lines with one of these words.

    Raises:
        Unread: it does not answer, or with something else.
    """
    try:
        page = await _lines(session, address, names=names, about=about)
        return _series(page.decode(), names=names)
    except TimeoutError:
        raise Unread(f"{address} does not answer in time") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unread(f"{address}: {type(error).__name__}: {error}"[:200]) from None
    except LineTooLong:
        raise Unread(f"{address} gives no figures: it has a line without end") from None
    except ValueError as error:
        raise Unread(f"{address} gives no figures: {error}"[:200]) from None


async def _lines(
    session: aiohttp.ClientSession, address: str, *, names: Collection[str], about: Collection[str]
) -> bytes:
    starts, words = tuple(name.encode() for name in names), [word.encode() for word in about]
    async with session.get(address) as reply:
        if reply.status != 200:
            raise ValueError(f"HTTP {reply.status}")
        kept, size = bytearray(), 0
        async for line in reply.content:
            size += len(line)
            if line.startswith(starts) and (not words or any(word in line for word in words)):
                kept += line
            if len(kept) > LARGEST or size > LONGEST:
                raise ValueError(f"more than {LARGEST} bytes")
        return bytes(kept)


def _series(page: str, *, names: Collection[str]) -> list[Series]:
    return [
        Series(name=sample.name, labels=sample.labels, value=float(sample.value))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in names
    ]

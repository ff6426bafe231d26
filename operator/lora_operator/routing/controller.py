"""A router's controller as the operator reaches it: asked over HTTP on the fence whether it has taken what was written.

Which controllers those are the settings say (`routers: [{ingressClass | gatewayClass, url}]`); one without an entry is not asked.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from lora_operator.api.reasons import Reason
from lora_operator.core.build.fence import FENCE_HEADER, Fence

__all__ = ["Ask", "Controllers", "Patient", "Reply", "ask_over_http", "what_is_missing"]

TIMEOUT_SECONDS = 3.0
NOT_FOUND = 404
SERVER_ERROR = 500


@dataclass(frozen=True)
class Reply:
    """What was answered. `mark`: of the fence that answered; empty where none says so."""

    status: int
    mark: str = ""


class Ask(Protocol):
    """Asks `url` for a path under a host name (empty: that of the url), with the mark of a fence."""

    async def __call__(self, url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
        """The answer, or why there is none."""


class Patient:
    """Asks, and leaves a controller alone for a while that kept us waiting and did not answer: each who waits holds a worker of the queue.

    Meanwhile the last answer holds, also for those who come while it is asked again. Who refuses at once is asked as often as wanted.
    """

    def __init__(self, ask: Ask, *, slow_seconds: float = 1.0, seconds: float = 10.0) -> None:
        self._ask = ask
        self._slow_seconds = slow_seconds
        self._seconds = seconds
        self._silent: dict[str, tuple[float, str]] = {}  # by url: until when (loop time), and why

    async def __call__(self, url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
        clock = asyncio.get_running_loop().time
        begun = clock()
        until, why = self._silent.get(url, (begun, ""))
        if begun < until:
            return why
        if why:
            self._silent[url] = (begun + self._seconds, why)
        answer = await self._ask(url, host=host, path=path, mark=mark)
        if isinstance(answer, str) and clock() - begun >= self._slow_seconds:
            self._silent[url] = (clock() + self._seconds, answer)
        else:
            self._silent.pop(url, None)
        return answer


async def ask_over_http(url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
    """GET; a redirect is an answer like any other."""
    headers = ({"Host": host} if host else {}) | ({FENCE_HEADER: mark} if mark else {})
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session,
            session.get(f"{url}{path}", headers=headers, allow_redirects=False) as reply,
        ):
            return Reply(status=reply.status, mark=reply.headers.get(FENCE_HEADER, ""))
    except TimeoutError:
        return f"no answer within {TIMEOUT_SECONDS:g} s"
    except (aiohttp.ClientError, ValueError) as error:
        return _words(error)


def _words(error: Exception) -> str:
    """Without addresses, which differ from look to look behind one name: what is told again is the same."""
    number = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else None
    return os.strerror(number) if number else type(error).__name__


@dataclass(frozen=True)
class Controllers:
    """All that the settings name, by class, and how they are asked."""

    ingress: Mapping[str, str] = field(default_factory=dict)
    gateway: Mapping[str, str] = field(default_factory=dict)
    ask: Ask = ask_over_http

    @classmethod
    def of(cls, routers: Iterable[Mapping[str, Any]], *, ask: Ask) -> "Controllers":
        """`routers`: of the settings."""
        urls: dict[str, dict[str, str]] = {"ingressClass": {}, "gatewayClass": {}}
        for router in routers:
            for kind, known in urls.items():
                if router.get(kind) and router.get("url"):
                    known[str(router[kind])] = str(router["url"]).rstrip("/")
        return cls(ingress=urls["ingressClass"], gateway=urls["gatewayClass"], ask=ask)


async def what_is_missing(ask: Ask, url: str, *, fence: Fence, of: str, written: str) -> tuple[Reason, str]:
    """Why `written` is not yet known to be served; an empty message once the controller of class `of` answers on the fence."""
    answer = await ask(url, host=fence.host, path=fence.path, mark=fence.mark)
    if isinstance(answer, str):
        return Reason.ROUTE_NOT_ACCEPTED, (
            f"the controller of {of} does not answer at {url} ({answer}); "
            "correct routers[].url in the operator's settings, or let the operator reach it"
        )
    known = answer.mark == fence.mark if fence.mark else answer.status != NOT_FOUND
    if known and answer.status < SERVER_ERROR:
        return Reason.STABLE, ""
    return Reason.PROMOTING, f"the controller at {url} has not taken the {written} yet (HTTP {answer.status})"

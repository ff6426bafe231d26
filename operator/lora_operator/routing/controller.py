"""A router's controller as the operator reaches it: asked over HTTP on the fence whether it has taken what was written.

Which controllers those are the settings say (`routers: [{ingressClass | gatewayClass, url}]`); one without an entry is not asked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from lora_operator.api.reasons import Reason
from lora_operator.core.build.fence import FENCE_HEADER, Fence

__all__ = ["Ask", "Controllers", "Reply", "ask_over_http", "what_is_missing"]

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


async def ask_over_http(url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
    """GET; a redirect is an answer like any other."""
    headers = ({"Host": host} if host else {}) | ({FENCE_HEADER: mark} if mark else {})
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session,
            session.get(f"{url}{path}", headers=headers, allow_redirects=False) as reply,
        ):
            return Reply(status=reply.status, mark=reply.headers.get(FENCE_HEADER, ""))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:200]


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

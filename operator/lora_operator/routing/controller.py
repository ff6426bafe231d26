"""An Ingress controller as the operator reaches it: asked over HTTP whether it has taken what was written.

Which controller that is the settings say (`routers: [{ingressClass, url}]`); without an entry nobody is asked.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import aiohttp

__all__ = ["Ask", "ask_over_http", "controller_urls"]

TIMEOUT_SECONDS = 3.0


class Ask(Protocol):
    """Asks `url` for a path under a host name."""

    async def __call__(self, url: str, *, host: str, path: str, headers: Mapping[str, str] | None = None) -> int | str:
        """The status code, or why there is none."""


def controller_urls(routers: Iterable[Mapping[str, Any]]) -> Mapping[str, str]:
    """Where the controller of an Ingress class answers, by class."""
    return {
        str(router["ingressClass"]): str(router["url"]).rstrip("/")
        for router in routers
        if router.get("ingressClass") and router.get("url")
    }


async def ask_over_http(url: str, *, host: str, path: str, headers: Mapping[str, str] | None = None) -> int | str:
    """GET; a redirect is an answer like any other."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session,
            session.get(f"{url}{path}", headers={"Host": host, **(headers or {})}, allow_redirects=False) as reply,
        ):
            return reply.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:200]

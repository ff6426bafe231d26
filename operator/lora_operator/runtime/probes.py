"""Health, readiness and metrics over HTTP, served from the first moment, by a standby too.

/healthz: the event loop turns, and a queue with work in it has finished something lately.
/readyz:  a standby is ready to take over; a leader is ready once its cache is complete.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["Probes"]


class Probes:
    """`healthy` and `ready` are asked at each probe."""

    def __init__(self, *, healthy: Callable[[], bool], ready: Callable[[], bool]) -> None:
        self._healthy = healthy
        self._ready = ready

    async def serve(self, *, host: str, port: int) -> None:
        """Serves until cancelled."""
        app = web.Application()
        app.router.add_get("/healthz", lambda _: self._answer(self._healthy(), "healthy"))
        app.router.add_get("/readyz", lambda _: self._answer(self._ready(), "ready"))
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    @staticmethod
    async def _answer(good: bool, word: str) -> web.Response:
        return web.Response(text=word if good else f"not {word}", status=200 if good else 503)

    @staticmethod
    async def _metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

"""Between the operator's pod and the API server: a test sees what was written before the operator knows that it was taken.

operator ──── write ───► proxy ──── write ───► API server
                           │ ◄───── taken ────
                       on_write      here the operator may be killed: then nobody is left to read the answer
operator ◄─── answer ──── proxy

The operator finds it by the two variables that every pod has the API server's address from. The name in them is one that the API server's
certificate holds for; the pod's hosts file says that the proxy has it. The proxy listens where only this machine and its cluster get to.
"""

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

from devcluster.cluster import Cluster
from tests.e2e.operator_process import patch_pod

__all__ = ["ApiProxy", "Write", "in_between"]

Json = dict[str, Any]
SERVER_NAME = "kubernetes.default.svc"
SSL_SHUTDOWN_SECONDS = 1  # for a goodbye that a killed operator never says
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
TARGET = re.compile(r"/apis?/.+?/namespaces/(?P<namespace>[^/]+)/(?P<resource>[^/]+)(/(?P<name>[^/]+))?(/(?P<sub>.+))?")
OF_ONE_CONNECTION = frozenset({"connection", "host", "keep-alive", "transfer-encoding"})


@dataclass(frozen=True)
class Write:
    """One that was taken, of an object in a namespace."""

    verb: str
    namespace: str
    resource: str
    name: str
    subresource: str
    answer: Json  # the object as it is now

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.verb} {'/'.join(part for part in (self.resource, self.name, self.subresource) if part)}"


class ApiProxy:
    """`with ApiProxy(cluster) as proxy:` forwards until the block ends. `on_write` is called in a thread, before the answer goes on."""

    def __init__(self, cluster: Cluster) -> None:
        self._instance = cluster.instance
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.on_write: Callable[[Write], None] = lambda _: None
        self.port = 0

    def __enter__(self) -> "ApiProxy":
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self) -> None:
        pki = self._instance.directory / "pki"
        trusted = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        connector = TCPConnector(ssl=trusted, limit=0)
        self._api = ClientSession(connector=connector, auto_decompress=False, timeout=ClientTimeout(total=None))
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._forward)
        # Cancelled with the connection it serves: what a dead operator had asked for, its watches above all, ends then.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        own.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
        self._server = await self._loop.create_server(
            self._runner.server, self._instance.host_side, 0, ssl=own, ssl_shutdown_timeout=SSL_SHUTDOWN_SECONDS
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        await self._runner.cleanup()
        await self._api.close()
        await asyncio.sleep(2 * SSL_SHUTDOWN_SECONDS)  # until the loop has closed those connections: it ends after this

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        asked = self._api.request(
            request.method,
            URL(f"{self._instance.api_url}{request.raw_path}", encoded=True),
            headers=_passed_on(request.headers),
            data=await request.read() or None,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            allow_redirects=False,
        )
        async with asked as answer:
            if request.method in VERBS:
                await self._see(request, await answer.read(), taken=answer.ok)
            reply = web.StreamResponse(status=answer.status, headers=_passed_on(answer.headers))
            await reply.prepare(request)
            if request.method in VERBS:
                await reply.write(await answer.read())
            else:
                async for part in answer.content.iter_any():  # a watch says something now and then
                    await reply.write(part)
            await reply.write_eof()
            return reply

    async def _see(self, request: web.Request, answer: bytes, *, taken: bool) -> None:
        write = _write(request, json.loads(answer)) if taken else None
        if write is not None:
            await asyncio.to_thread(self.on_write, write)


@contextmanager
def in_between(cluster: Cluster) -> Iterator[ApiProxy]:
    """The operator speaks with the API server through it until the block ends."""
    with ApiProxy(cluster) as proxy:
        variables = {"KUBERNETES_SERVICE_HOST": SERVER_NAME, "KUBERNETES_SERVICE_PORT": str(proxy.port)}
        aliases = [{"ip": cluster.instance.host_side, "hostnames": [SERVER_NAME]}]
        try:
            env = [{"name": name, "value": value} for name, value in variables.items()]
            patch_pod(cluster, container={"env": env}, pod={"hostAliases": aliases})
            yield proxy
        finally:
            env = [{"name": name, "$patch": "delete"} for name in variables]
            patch_pod(cluster, container={"env": env}, pod={"hostAliases": None})


def _write(request: web.Request, answer: Json) -> Write | None:
    target = TARGET.fullmatch(request.path)
    if target is None:
        return None
    return Write(
        verb=VERBS[request.method],
        namespace=target["namespace"],
        resource=target["resource"],
        name=target["name"] or answer["metadata"]["name"],
        subresource=target["sub"] or "",
        answer=answer,
    )


def _passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in OF_ONE_CONNECTION)

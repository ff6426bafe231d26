"""The fake API server with the rest of a cluster around it: nodes, storage, routers, the operator's own objects, and rights."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from aiohttp import web

from lora_client.names import CLAIM, Kind
from loractl.commands.doctor import (
    CONFIG_MAP,
    CRD,
    DEPLOYMENT,
    GATEWAY,
    GATEWAY_CLASS,
    INGRESS_CLASS,
    LEASE,
    NODE,
    STORAGE_CLASS,
)
from loractl.commands.look import EVENT
from tests.fakes.api_server import KINDS, FakeApiServer

Json = dict[str, Any]
MORE = (CLAIM, CONFIG_MAP, CRD, DEPLOYMENT, EVENT, GATEWAY, GATEWAY_CLASS, INGRESS_CLASS, LEASE, NODE, STORAGE_CLASS)
KINDS.update({(kind.group, kind.version, kind.plural): kind for kind in MORE})
NOWHERE = ""


class WholeCluster(FakeApiServer):
    """`refused` holds `verb resource` pairs that nobody may do."""

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        self.minor = "37"
        self.groups = {"loraops.dev", "apps", "batch", "gateway.networking.k8s.io"}
        self.refused: set[str] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = 0

    # The test's own hand works in another thread than the server, whose events wake only tasks of its own loop.
    def _store(self, kind: Kind, obj: Json) -> Json:
        store = super()._store
        stored: Json = self._there(lambda: store(kind, obj))
        return stored

    def remove(self, kind: Kind, name: str, *, namespace: str = "finance") -> None:
        """Deletes."""
        remove = super().remove
        self._there(lambda: remove(kind, name, namespace=namespace))

    def _there(self, act: Callable[[], Any]) -> Any:
        if self.loop is None or threading.get_ident() == self.thread:
            return act()
        done: Future[Any] = Future()
        self.loop.call_soon_threadsafe(lambda: done.set_result(act()))
        return done.result(10)

    def put_somewhere(self, kind: Kind, name: str, *, namespace: str = NOWHERE, **content: Any) -> Json:
        """Stores an object of any kind; without a namespace it belongs to the cluster."""
        labels = content.pop("labels", {})
        annotations = content.pop("annotations", {})
        meta = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
        return self.put(kind, {**content, "metadata": meta}, namespace=namespace)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"major": "1", "minor": self.minor, "gitVersion": f"v1.{self.minor}.1"})
        if request.path == "/apis":
            return web.json_response({"groups": [{"name": name} for name in sorted(self.groups)]})
        if request.path.endswith("/selfsubjectaccessreviews"):
            return await self._review(request)
        resource = request.path.split("/")[-1]
        if request.method == "GET" and f"list {resource}" in self.refused:
            message = f'{resource} is forbidden: User "eve" cannot list resource "{resource}"'
            body = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": message}
            return web.json_response(body, status=403)
        return await super()._route(request)

    async def _review(self, request: web.Request) -> web.Response:
        asked = (await request.json())["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        right = f"{asked['verb']} {resource}" + ("" if asked["namespace"] else " everywhere")
        allowed = right not in self.refused
        return web.json_response({"status": {"allowed": allowed}}, status=201)

"""A Kubernetes API server over real HTTP, as far as a client of LoRA resources needs one.

Lists are paged, writes move resourceVersion and (spec only) generation, server-side apply keeps an owner per field and
refuses a foreign one, merge patches may carry preconditions, watches stream from a version and answer 410 once it was
compacted away. Faults are told in advance: `api.fail(status=503, times=2)`. What is stored is plain to look at: `api.objects`.
"""

import asyncio
import copy
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from lora_client.names import ADAPTER, CONTROLLER_REVISION, JOB, LORA_DEPLOYMENT, POD, Kind

Json = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
KINDS = {
    (k.group, k.version, k.plural): k for k in (ADAPTER, LORA_DEPLOYMENT, CONTROLLER_REVISION, JOB, POD, DEPLOYMENT)
}
ROUTE = re.compile(
    r"^(?:/apis/(?P<group>[^/]+)|/api)/(?P<version>v[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$"
)


@dataclass
class Fault:
    """One answer in place of the real one. status 0: the connection is cut."""

    status: int
    times: int
    match: str = ""
    method: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "made for the test"
    after: bool = False  # the write is done first, its answer is lost


class FakeApiServer:
    """One cluster. `installed` False: it does not know the CRDs."""

    def __init__(self) -> None:
        self.objects: dict[Key, Json] = {}
        self.logs: dict[tuple[str, str], list[str]] = {}  # pod, container
        self.requests: list[str] = []
        self.installed = True
        self.token = "secret"
        self.page = 500
        self.broken_streams = 0  # so many watches are cut right after their 200, before any event
        self.deaf = False  # commands end at once and never read their input
        self.react: Callable[[Json], None] = lambda _: None  # the operator's part: called after every write with a copy
        self.execute: Callable[[list[str], bytes], tuple[int, bytes]] = lambda *_: (127, b"no such command")
        self._faults: list[Fault] = []
        self._versions = itertools.count(1)
        self._version = 0
        self._changes: list[tuple[int, str, Json]] = []
        self._compacted = 0
        self._news = asyncio.Event()
        self._owners: dict[Key, dict[tuple[str, ...], str]] = {}

    # ---- the test's own hand ----------------------------------------------------------------------------------------
    def fail(self, status: int, *, times: int = 1, **more: Any) -> None:
        """The next `times` requests (whose path contains `match`) get this answer."""
        self._faults.append(Fault(status, times, **more))

    def put(self, kind: Kind, obj: Json, *, namespace: str = "finance") -> Json:
        """Stores an object behind everybody's back."""
        meta = {"namespace": namespace, **obj.get("metadata", {})}
        return self._store(kind, {"apiVersion": kind.api_version, "kind": kind.kind, **obj, "metadata": meta})

    def peek(self, kind: Kind, name: str, *, namespace: str = "finance") -> Json:
        """The stored object."""
        return self.objects[kind.plural, namespace, name]

    def set_status(self, kind: Kind, name: str, status: Json, *, namespace: str = "finance") -> None:
        """What the operator writes; observedGeneration is the stored one unless said."""
        obj = copy.deepcopy(self.peek(kind, name, namespace=namespace))
        obj["status"] = {"observedGeneration": obj["metadata"]["generation"], **status}
        self._store(kind, obj)

    def remove(self, kind: Kind, name: str, *, namespace: str = "finance") -> None:
        """Deletes."""
        gone = self.objects.pop((kind.plural, namespace, name))
        self._tell("DELETED", gone)

    def compact(self) -> None:
        """Forgets the past: watches from before get 410."""
        self._compacted = self._version
        self._changes.clear()
        self._news.set()

    # ---- storage ----------------------------------------------------------------------------------------------------
    def _store(self, kind: Kind, obj: Json) -> Json:
        obj = copy.deepcopy(obj)
        meta = obj["metadata"]
        key = (kind.plural, meta.get("namespace", ""), meta["name"])
        before = self.objects.get(key)
        if before is not None and {**before, "metadata": _plain(before)} == {**obj, "metadata": _plain(obj)}:
            return before
        if before is None:
            meta.setdefault("uid", f"uid-{len(self._changes)}-{meta['name']}")
            meta.setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            meta["generation"] = 1
        elif before.get("spec") != obj.get("spec"):
            meta["generation"] = before["metadata"]["generation"] + 1
        self._version = next(self._versions)
        meta["resourceVersion"] = str(self._version)
        self.objects[key] = obj
        self._tell("ADDED" if before is None else "MODIFIED", obj)
        return obj

    def _tell(self, kind: str, obj: Json) -> None:
        if kind == "DELETED":
            self._version = next(self._versions)
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self._changes.append((self._version, kind, copy.deepcopy(obj)))
        self._news.set()
        self._news = asyncio.Event()

    # ---- HTTP -------------------------------------------------------------------------------------------------------
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        self.requests.append(f"{request.method} {request.path_qs}")
        fault = self._fault(request)
        if fault is not None and not fault.after:
            return self._faulty(request, fault)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        response = await self._route(request)
        if fault is not None:
            return self._faulty(request, fault)
        return response

    def _fault(self, request: web.Request) -> Fault | None:
        for fault in self._faults:
            if fault.match in request.path_qs and fault.method in ("", request.method):
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None

    def _faulty(self, request: web.Request, fault: Fault) -> web.Response:
        if fault.status == 0:
            assert request.transport is not None
            request.transport.close()
            return web.Response(status=500)
        return _status(fault.status, "Faulty", fault.message, headers=fault.headers)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        found = ROUTE.match(request.path)
        kind = None if found is None else KINDS.get((found["group"] or "", found["version"], found["plural"]))
        if found is None or kind is None or (not self.installed and kind in (ADAPTER, LORA_DEPLOYMENT)):
            return web.Response(status=404, text="404 page not found\n")
        namespace, name = found["namespace"], found["name"]
        if found["sub"] == "log":
            return await self._log(request, pod=name)
        if found["sub"] == "exec":
            return await self._exec(request)
        if request.method == "GET" and name is None and request.query.get("watch") == "true":
            return await self._watch(request, kind, namespace=namespace)
        if request.method == "GET" and name is None:
            return self._list(request, kind, namespace=namespace)
        body = await request.json() if request.can_read_body else {}
        return self._single(
            request, kind, (kind.plural, namespace, name or body.get("metadata", {}).get("name", "")), body
        )

    def _single(self, request: web.Request, kind: Kind, key: Key, body: Json) -> web.Response:
        stored = self.objects.get(key)
        content = request.content_type
        if request.method == "POST":
            if stored is not None:
                return _status(409, "AlreadyExists", f'{kind.plural} "{key[2]}" already exists')
            return self._written(kind, {"apiVersion": kind.api_version, "kind": kind.kind, **body}, code=201)
        if request.method == "PATCH" and content == "application/apply-patch+yaml":
            return self._apply(request, kind, key, body)
        if stored is None:
            return _status(404, "NotFound", f'{kind.plural}.{kind.group} "{key[2]}" not found')
        if request.method == "GET":
            return web.json_response(stored)
        if request.method == "DELETE":
            del self.objects[key]
            self._tell("DELETED", stored)
            return web.json_response({"kind": "Status", "status": "Success"})
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, stored["metadata"]["resourceVersion"]):
            return _status(
                409, "Conflict", "the object has been modified; please apply your changes to the latest version"
            )
        return self._written(kind, _patched(stored, body))

    def _apply(self, request: web.Request, kind: Kind, key: Key, body: Json) -> web.Response:
        stored, manager = self.objects.get(key), request.query["fieldManager"]
        immutable = {"base", "adapters", "merge", "quantization", "artifact"} if kind is ADAPTER else set()
        if stored is not None and any(
            stored["spec"].get(f) != body["spec"].get(f) for f in immutable & set(body["spec"])
        ):
            return _status(
                422,
                "Invalid",
                f'{kind.kind} "{key[2]}" is invalid: spec: found a change in base, adapters, …, which are immutable',
            )
        owners = self._owners.setdefault(key, {})
        for path, value in _leaves(body.get("spec", {})):
            owner = owners.get(path, manager)
            if (
                owner != manager
                and _at(stored or {}, ("spec", *path)) != value
                and request.query.get("force") != "true"
            ):
                return _status(
                    409, "Conflict", f'Apply failed with 1 conflict: conflict with "{owner}": .spec.{".".join(path)}'
                )
        if request.query.get("dryRun") == "All":
            return web.json_response(body)
        owners.update({path: manager for path, _ in _leaves(body.get("spec", {}))})
        base = stored or {"metadata": {}}
        return self._written(kind, _patched(base, body), code=200 if stored else 201)

    def own(self, kind: Kind, name: str, path: tuple[str, ...], manager: str, *, namespace: str = "finance") -> None:
        """Makes `manager` the owner of a field of spec."""
        self._owners.setdefault((kind.plural, namespace, name), {})[path] = manager

    def _written(self, kind: Kind, obj: Json, *, code: int = 200) -> web.Response:
        stored = self._store(kind, obj)
        self.react(copy.deepcopy(stored))
        return web.json_response(stored, status=code)

    def _selected(self, kind: Kind, obj: Json, query: Mapping[str, str], namespace: str | None) -> bool:
        meta = obj["metadata"]
        if obj["kind"] != kind.kind or (namespace is not None and meta.get("namespace") != namespace):
            return False
        labels = meta.get("labels") or {}
        for term in filter(None, query.get("labelSelector", "").split(",")):
            key, equals, value = term.partition("=")
            if (labels.get(key) != value) if equals else (key not in labels):
                return False
        wanted = query.get("fieldSelector", "")
        return not wanted or wanted == f"metadata.name={meta['name']}"

    def _list(self, request: web.Request, kind: Kind, *, namespace: str | None) -> web.Response:
        found = [obj for obj in self.objects.values() if self._selected(kind, obj, request.query, namespace)]
        start = int(request.query.get("continue") or 0)
        end = start + min(int(request.query.get("limit", self.page)), self.page)
        meta = {"resourceVersion": str(self._version)} | ({"continue": str(end)} if end < len(found) else {})
        items = [{k: v for k, v in obj.items() if k not in ("apiVersion", "kind")} for obj in found[start:end]]
        return web.json_response({"kind": f"{kind.kind}List", "metadata": meta, "items": items})

    async def _watch(self, request: web.Request, kind: Kind, *, namespace: str | None) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if self.broken_streams > 0:
            self.broken_streams -= 1
            await response.write(b"\n")
            assert request.transport is not None
            request.transport.close()
            return response
        version = int(request.query["resourceVersion"])
        while request.transport is not None and not request.transport.is_closing():
            news = self._news
            if version < self._compacted:
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
                break
            for number, change, obj in list(self._changes):
                if number > version and self._selected(kind, obj, request.query, namespace):
                    await response.write(json.dumps({"type": change, "object": obj}).encode() + b"\n")
            version = max(version, self._version)
            await news.wait()
        return response

    def cut_watches(self) -> None:
        """Ends every stream at its next change, as a restart of the API server does."""
        self._news.set()

    async def _log(self, request: web.Request, *, pod: str) -> web.StreamResponse:
        lines = self.logs.get((pod, request.query["container"]))
        if lines is None:
            return _status(
                400, "BadRequest", f'container "{request.query["container"]}" in pod "{pod}" is waiting to start'
            )
        tail = request.query.get("tailLines")
        return web.Response(text="".join(f"{line}\n" for line in (lines[-int(tail) :] if tail else lines)))

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        given = bytearray()
        if request.query.get("stdin") == "true" and not self.deaf:
            async for message in socket:
                if message.type is WSMsgType.BINARY and message.data[0] == 255:  # v5: the sender closed a channel
                    break
                given += message.data[1:]
        code, output = self.execute(request.query.getall("command"), bytes(given))
        await socket.send_bytes((b"\x01" if code == 0 else b"\x02") + output)
        causes = [{"reason": "ExitCode", "message": str(code)}]
        end: Json = (
            {"status": "Success"}
            if code == 0
            else {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
        )
        await socket.send_bytes(b"\x03" + json.dumps(end).encode())
        await socket.close()
        return socket


@asynccontextmanager
async def serving(api: FakeApiServer) -> AsyncIterator[str]:
    """The server's URL while it runs."""
    app = web.Application(client_max_size=2**28)
    app.router.add_route("*", "/{path:.*}", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def write_kubeconfig(path: Path, *, server: str, token: str = "secret", namespace: str = "finance") -> Path:
    """A kubeconfig with one context, `test`."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _status(code: int, reason: str, message: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
    return web.json_response(body, status=code, headers=headers)


def _plain(obj: Json) -> Json:
    moving = ("resourceVersion", "generation", "uid", "creationTimestamp")
    return {key: value for key, value in obj["metadata"].items() if key not in moving}


def _patched(before: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    base = copy.deepcopy(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = _patched(base.get(key), value)
    return base


def _leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, (*path, str(key)))]
    return [(path, value)]


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value

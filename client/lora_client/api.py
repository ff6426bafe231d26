"""The calls of the Kubernetes API that the client makes: plain dictionaries in and out, errors as sentences.

How they travel, and what is tried again, is transport.py's; what a refusal means answers.py's.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Self
from urllib.parse import quote

from lora_client.answers import ApiStatus, Gone, Missing, error_of
from lora_client.connection import Connection, load_connection
from lora_client.errors import Unavailable
from lora_client.names import FIELD_MANAGER, Kind
from lora_client.retrying import Backoff
from lora_client.transport import Reconnect, Transport

__all__ = ["Api", "Gone", "Json", "Missing", "path_of"]

Json = dict[str, Any]
PAGE = 500
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class Api:
    """A connection. Make it with `Api.connect()`; use it as an async context manager, or call `close()`."""

    def __init__(
        self,
        connection: Connection,
        *,
        timeout_seconds: float = 30.0,
        backoff: Backoff | None = None,
        field_manager: str = FIELD_MANAGER,
        reconnect: Reconnect | None = None,
    ) -> None:
        self.field_manager = field_manager
        self._transport = Transport(
            connection, timeout_seconds=timeout_seconds, backoff=backoff or Backoff(), reconnect=reconnect
        )

    @property
    def connection(self) -> Connection:
        """The cluster, and the namespace of calls that name none."""
        return self._transport.connection

    def move_to(self, namespace: str) -> None:
        """Calls that name no namespace go there from now on."""
        self._transport.connection = replace(self.connection, namespace=namespace)

    @classmethod
    async def connect(
        cls,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
        timeout_seconds: float = 30.0,
        backoff: Backoff | None = None,
        field_manager: str = FIELD_MANAGER,
    ) -> Self:
        """The cluster that kubectl would talk to with the same options. Does not talk to it yet."""

        async def load() -> Connection:
            return await load_connection(kubeconfig=kubeconfig, context=context, namespace=namespace)

        return cls(
            await load(), timeout_seconds=timeout_seconds, backoff=backoff, field_manager=field_manager, reconnect=load
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Gives the connections back."""
        await self._transport.close()

    async def get(self, kind: Kind, *, namespace: str, name: str) -> Json:
        """One object.

        Raises:
            Missing: there is none of that name.
        """
        return await self._object("GET", path_of(kind, namespace=namespace, name=name))

    async def list_with_version(
        self, kind: Kind, *, namespace: str | None, labels: str = "", fields: str = ""
    ) -> tuple[list[Json], str]:
        """As `list`, with the resourceVersion that a watch goes on from."""
        found: list[Json] = []
        query = {"limit": str(PAGE)}
        query |= {"labelSelector": labels} if labels else {}
        query |= {"fieldSelector": fields} if fields else {}
        while True:
            page = await self._object("GET", path_of(kind, namespace=namespace), query=query)
            found += [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page.get("items") or ()]
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return found, str(meta.get("resourceVersion", ""))
            query["continue"] = meta["continue"]

    async def list(self, kind: Kind, *, namespace: str | None, labels: str = "") -> list[Json]:
        """All objects of a kind, paged; `namespace` None means all namespaces. Items carry apiVersion and kind."""
        items, _ = await self.list_with_version(kind, namespace=namespace, labels=labels)
        return items

    async def apply(
        self, kind: Kind, manifest: Mapping[str, Any], *, force: bool = False, dry_run: bool = False
    ) -> Json:
        """Server-side apply: sets the fields of the manifest and leaves all others alone.

        Raises:
            Conflict: another field manager owns one of the fields, and `force` is not given.
            Refused: the schema or a rule forbids the object; the sentence is the server's.
        """
        meta = manifest["metadata"]
        query = {"fieldManager": self.field_manager, "fieldValidation": "Strict", "force": "true" if force else "false"}
        query |= {"dryRun": "All"} if dry_run else {}
        path = path_of(kind, namespace=meta["namespace"], name=meta["name"])
        return await self._object("PATCH", path, query=query, body=manifest, content=APPLY_PATCH)

    async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Json:
        """POST.

        Raises:
            Conflict: there is one of that name already.
        """
        query = {"fieldManager": self.field_manager}
        path = path_of(kind, namespace=manifest["metadata"]["namespace"])
        return await self._object("POST", path, query=query, body=manifest, harmless=False)

    async def patch(self, kind: Kind, *, namespace: str, name: str, body: Mapping[str, Any]) -> Json:
        """JSON merge patch; a resourceVersion in its metadata is a precondition (Conflict)."""
        query = {"fieldManager": self.field_manager}
        path = path_of(kind, namespace=namespace, name=name)
        return await self._object("PATCH", path, query=query, body=body, content=MERGE_PATCH)

    async def delete(self, kind: Kind, *, namespace: str, name: str) -> None:
        """DELETE, children in the background; an absent object is success."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        try:
            await self._object("DELETE", path_of(kind, namespace=namespace, name=name), body=body)
        except Missing:
            return

    async def text(self, path: str, *, query: Mapping[str, str] | None = None) -> str:
        """The answer to a GET as text, e.g. a pod's log."""
        data = await self._transport.request("GET", path, query=query)
        return data.decode(errors="replace")

    async def document(self, path: str) -> Json:
        """The answer to a GET of any path, e.g. `/version`."""
        return await self._object("GET", path)

    @asynccontextmanager
    async def lines(
        self, path: str, *, query: Mapping[str, str], idle_seconds: float | None = None
    ) -> AsyncIterator[AsyncIterator[str]]:
        """A GET whose answer comes line by line; ends when the server ends it or is silent for `idle_seconds`.

        Raises:
            Unavailable: the stream broke.
        """
        response = await self._transport.stream(path, query=query, idle_seconds=idle_seconds)
        try:
            yield _split(response.content, path=path)
        finally:
            response.close()

    @asynccontextmanager
    async def socket(
        self, path: str, *, query: Sequence[tuple[str, str]], protocols: tuple[str, ...]
    ) -> AsyncIterator[Any]:
        """A websocket (an aiohttp ClientWebSocketResponse), e.g. for exec."""
        import aiohttp  # noqa: PLC0415 - as in transport.py

        try:
            socket = await self._transport.websocket(path, query=query, protocols=protocols)
            try:
                yield socket
            finally:
                await socket.close()
        except aiohttp.WSServerHandshakeError as error:
            raise error_of(
                ApiStatus(error.status, "", error.message), path=path, where=self.connection.where
            ) from error
        except aiohttp.ClientError as error:
            raise Unavailable(f"{path}: {type(error).__name__} {error}".strip()) from error

    async def _object(self, method: str, path: str, **options: Any) -> Json:
        data = await self._transport.request(method, path, **options)
        return dict(json.loads(data)) if data else {}


def path_of(kind: Kind, *, namespace: str | None, name: str | None = None) -> str:
    """`/apis/<group>/<version>/namespaces/<namespace>/<plural>/<name>`; odd characters of a name stay inside their part."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{scope}/{kind.plural}" + (f"/{quote(name, safe=':')}" if name else "")


async def _split(content: Any, *, path: str) -> AsyncIterator[str]:
    """Lines of a stream, whatever their length."""
    import aiohttp  # noqa: PLC0415 - as in transport.py

    rest = b""
    try:
        async for chunk in content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
    except TimeoutError:
        return  # silence: the reader asks again
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"{path}: the stream broke: {type(error).__name__} {error}".strip()) from error
    if rest:
        yield rest.decode(errors="replace")

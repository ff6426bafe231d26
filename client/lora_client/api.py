"""The calls of the Kubernetes API that the client makes: plain dictionaries in and out, errors as sentences.

    read, apply, merge patch, delete ─► tried again on 429, 5xx, reset and timeout (repeating them changes nothing)
    create                           ─► tried again only where the server cannot have acted: 429, refused connection
    watch, logs                      ─► one stream; whoever reads it decides what an end means (watching.py, logs.py)

Only transport and authentication of the `kubernetes` package are used: its typed models drop unknown fields silently.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from lora_client.connection import Connection, load_connection
from lora_client.errors import (
    ClientError,
    Conflict,
    Forbidden,
    NoCluster,
    NotInstalled,
    Refused,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from lora_client.names import FIELD_MANAGER, GROUP, Kind
from lora_client.retrying import Backoff

__all__ = ["Api", "ApiStatus", "Gone", "Json", "Missing", "path_of"]

Json = dict[str, Any]
PAGE = 500
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
TRANSIENT = frozenset({429, 500, 502, 503, 504})
UNTYPED = "failed to create typed patch object"
CONNECT_ATTEMPTS = 3
"""A cluster that refuses connections is reported within about a second, not after the whole backoff."""


@dataclass(frozen=True)
class ApiStatus:
    """What the API server answered instead of what was asked for."""

    code: int
    reason: str
    message: str
    after: float | None = None


class Missing(ClientError):
    """404 of one object: the caller knows what it was in words, and turns this into NotFound."""

    exit_code = 2


class Gone(ClientError):
    """410: a watch must begin again with a list."""


class _Transient(Exception):
    """`unacted`: the server says that it did nothing, so even a create may be sent again."""

    def __init__(
        self, message: str, *, after: float | None = None, refused: bool = False, unacted: bool = False
    ) -> None:
        super().__init__(message)
        self.after = after
        self.refused = refused
        self.unacted = unacted


class Api:
    """A connection. Make it with `Api.connect()`; use it as an async context manager, or call `close()`."""

    def __init__(
        self,
        connection: Connection,
        *,
        timeout_seconds: float = 30.0,
        backoff: Backoff | None = None,
        field_manager: str = FIELD_MANAGER,
        reconnect: Callable[[], Awaitable[Connection]] | None = None,
    ) -> None:
        self.connection = connection
        self.field_manager = field_manager
        self._timeout = timeout_seconds
        self._backoff = backoff or Backoff()
        self._reconnect = reconnect
        self._transport = _transport(connection)

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
        return await self._read(path_of(kind, namespace=namespace, name=name))

    async def list_with_version(
        self, kind: Kind, *, namespace: str | None, labels: str = "", fields: str = ""
    ) -> tuple[list[Json], str]:
        """As `list`, with the resourceVersion that a watch goes on from."""
        found: list[Json] = []
        query = {"limit": str(PAGE)}
        query |= {"labelSelector": labels} if labels else {}
        query |= {"fieldSelector": fields} if fields else {}
        while True:
            page = await self._read(path_of(kind, namespace=namespace), query=query)
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
        return await self._repeated("PATCH", path, query=query, body=manifest, content=APPLY_PATCH)

    async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Json:
        """POST.

        Raises:
            Conflict: there is one of that name already.
        """
        query = {"fieldManager": self.field_manager}
        path = path_of(kind, namespace=manifest["metadata"]["namespace"])
        return await self._repeated("POST", path, query=query, body=manifest, harmless=False)

    async def patch(self, kind: Kind, *, namespace: str, name: str, body: Mapping[str, Any]) -> Json:
        """JSON merge patch; a resourceVersion in its metadata is a precondition (Conflict)."""
        query = {"fieldManager": self.field_manager}
        path = path_of(kind, namespace=namespace, name=name)
        return await self._repeated("PATCH", path, query=query, body=body, content=MERGE_PATCH)

    async def delete(self, kind: Kind, *, namespace: str, name: str) -> None:
        """DELETE, children in the background; an absent object is success."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        try:
            await self._repeated("DELETE", path_of(kind, namespace=namespace, name=name), body=body)
        except Missing:
            return

    async def text(self, path: str, *, query: Mapping[str, str] | None = None) -> str:
        """The answer to a GET as text, e.g. a pod's log."""
        data = await self._bytes("GET", path, query=query)
        return data.decode(errors="replace")

    async def document(self, path: str) -> Json:
        """The answer to a GET of any path, e.g. `/version`."""
        return await self._read(path)

    @asynccontextmanager
    async def lines(
        self, path: str, *, query: Mapping[str, str], idle_seconds: float | None = None
    ) -> AsyncIterator[AsyncIterator[str]]:
        """A GET whose answer comes line by line; ends when the server ends it or is silent for `idle_seconds`.

        Raises:
            Unavailable: the stream broke.
        """
        import aiohttp  # noqa: PLC0415 - as in connection.py

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=idle_seconds)
        try:
            response = await self._opened(path, query=query, timeout=timeout)
        except _Transient as error:
            raise Unavailable(str(error)) from error
        try:
            if response.status >= 400:
                raise _error(
                    _status_of(response.status, await response.read(), response.headers),
                    path=path,
                    connection=self.connection,
                )
            yield _split(response.content, path=path)
        finally:
            response.close()

    @asynccontextmanager
    async def socket(
        self, path: str, *, query: Sequence[tuple[str, str]], protocols: tuple[str, ...]
    ) -> AsyncIterator[Any]:
        """A websocket (an aiohttp ClientWebSocketResponse), e.g. for exec."""
        import aiohttp  # noqa: PLC0415 - as in connection.py

        try:
            try:
                socket = await self._handshake(path, query=query, protocols=protocols)
            except aiohttp.WSServerHandshakeError as error:
                if error.status != 401 or self._reconnect is None:
                    raise
                await self._renew()
                socket = await self._handshake(path, query=query, protocols=protocols)
            try:
                yield socket
            finally:
                await socket.close()
        except aiohttp.WSServerHandshakeError as error:
            status = ApiStatus(error.status, "", error.message)
            raise _error(status, path=path, connection=self.connection) from error
        except aiohttp.ClientError as error:
            raise Unavailable(f"{path}: {type(error).__name__} {error}".strip()) from error

    async def _opened(self, path: str, *, query: Mapping[str, str], timeout: Any) -> Any:  # noqa: ASYNC109 (as in _send)
        """The answer to a GET, still unread; after a 401 the answer to the same GET with new credentials."""
        response = await self._send("GET", path, query=query, timeout=timeout)
        if response.status != 401 or self._reconnect is None:
            return response
        response.close()
        await self._renew()
        return await self._send("GET", path, query=query, timeout=timeout)

    async def _handshake(self, path: str, *, query: Sequence[tuple[str, str]], protocols: tuple[str, ...]) -> Any:
        url, headers = await self._address("GET", path, query=query)
        scheme = "wss" if url.startswith("https") else "ws"
        return await self._session().ws_connect(
            scheme + url[url.index(":") :], headers=headers, protocols=protocols, max_msg_size=0, **self._tls()
        )

    async def _read(self, path: str, *, query: Mapping[str, str] | None = None) -> Json:
        return await self._repeated("GET", path, query=query)

    async def _repeated(self, method: str, path: str, **options: Any) -> Json:
        data = await self._bytes(method, path, **options)
        return dict(json.loads(data)) if data else {}

    async def _bytes(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        harmless: bool = True,
    ) -> bytes:
        attempt, renewed = 0, False
        while True:
            attempt += 1
            try:
                return await self._once(method, path, query=query, body=body, content=content)
            except Unauthorized:
                if renewed or self._reconnect is None:
                    raise
                renewed = True
                await self._renew()
            except _Transient as error:
                repeat = harmless or error.refused or error.unacted
                last = CONNECT_ATTEMPTS if error.refused else self._backoff.attempts
                if not repeat or attempt >= last:
                    raise _given_up(error, attempt=attempt, connection=self.connection) from error
                await self._backoff.pause(attempt, after=error.after)

    async def _renew(self) -> None:
        """New credentials after a 401: tokens of login plugins are short-lived, and a client may live for days."""
        assert self._reconnect is not None  # noqa: S101 (the caller looked)
        fresh = await self._reconnect()
        old, self._transport = self._transport, _transport(fresh)
        self.connection = fresh
        await old.close()

    async def _once(
        self, method: str, path: str, *, query: Mapping[str, str] | None, body: Mapping[str, Any] | None, content: str
    ) -> bytes:
        import aiohttp  # noqa: PLC0415 - as in connection.py

        timeout = aiohttp.ClientTimeout(total=self._timeout, connect=min(10.0, self._timeout))
        response = await self._send(method, path, query=query, body=body, content=content, timeout=timeout)
        try:
            data: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Transient(f"{method} {path}: {type(error).__name__} {error}".strip()) from error
        finally:
            response.release()
        if response.status < 400:
            return data
        status = _status_of(response.status, data, response.headers)
        if status.code in TRANSIENT and not _forbidden_by_schema(status):
            unacted = status.code == 429  # a 5xx may have been done, whatever Retry-After it carries
            raise _Transient(f"{path}: {status.code} {status.message}", after=status.after, unacted=unacted)
        raise _error(status, path=path, connection=self.connection)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        timeout: Any,  # noqa: ASYNC109 (aiohttp's own timeout, not a deadline of this call)
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> Any:
        import aiohttp  # noqa: PLC0415 - as in connection.py

        url, headers = await self._address(method, path, query=list((query or {}).items()))
        headers |= {"Accept": "application/json, */*", "Content-Type": content}
        data = json.dumps(body) if body is not None else None
        options = self._tls() | {"headers": headers, "data": data, "timeout": timeout}
        try:
            return await self._session().request(method, url, **options)
        except aiohttp.ClientConnectorCertificateError as error:
            message = f"{self.connection.server} shows a certificate that is not trusted: {error}; correct certificate-authority"
            raise NoCluster(f"{message} of {self.connection.where}") from error
        except aiohttp.ClientConnectorError as error:
            raise _Transient(f"{self.connection.server}: {error.strerror or error}", refused=True) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Transient(f"{method} {path}: {type(error).__name__} {error}".strip()) from error

    async def _address(self, method: str, path: str, *, query: Sequence[tuple[str, str]]) -> tuple[str, dict[str, str]]:
        """The full URL, and the headers that log in."""
        _, url, headers, _, _ = await self._transport.param_serialize(
            method=method, resource_path=path, query_params=list(query), header_params={}, auth_settings=["BearerToken"]
        )
        return str(url), dict(headers)

    def _session(self) -> Any:
        rest = self._transport.rest_client
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()
        return rest.pool_manager

    def _tls(self) -> dict[str, Any]:
        configuration = self.connection.configuration
        options = {}
        if configuration.tls_server_name:
            options["server_hostname"] = configuration.tls_server_name
        if configuration.proxy:
            options["proxy"] = configuration.proxy
        return options


def path_of(kind: Kind, *, namespace: str | None, name: str | None = None) -> str:
    """`/apis/<group>/<version>/namespaces/<namespace>/<plural>/<name>`."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{kind.plural}" + (f"/{name}" if name else "")


def _transport(connection: Connection) -> Any:
    from kubernetes.aio import client  # noqa: PLC0415 - as in connection.py

    return client.ApiClient(connection.configuration)


async def _split(content: Any, *, path: str) -> AsyncIterator[str]:
    """Lines of a stream, whatever their length."""
    import aiohttp  # noqa: PLC0415 - as in connection.py

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


def _status_of(code: int, data: bytes, headers: Mapping[str, str]) -> ApiStatus:
    after = headers.get("Retry-After", "")
    seconds = float(after) if after.isdigit() else None
    try:
        raw = json.loads(data)
        return ApiStatus(code, str(raw.get("reason", "")), str(raw.get("message", ""))[:2000], seconds)
    except (ValueError, AttributeError):
        return ApiStatus(code, "", data.decode(errors="replace").strip()[:500], seconds)


def _given_up(error: _Transient, *, attempt: int, connection: Connection) -> ClientError:
    if error.refused:
        return NoCluster(
            f"the cluster does not answer ({connection.where}): {error}; is it running, is the address right, "
            "does a proxy or VPN stand between?"
        )
    if "TimeoutError" in str(error):
        return TimedOut(f"no answer in time, {attempt} tries: {error} ({connection.where})")
    return Unavailable(f"the API server failed {attempt} times: {error} ({connection.where}); try again later")


def _error(status: ApiStatus, *, path: str, connection: Connection) -> ClientError:
    """A final answer of the server as the error that says what to do."""
    if status.code == 404:
        return _of_missing(status, path=path, connection=connection)
    known: dict[int, ClientError] = {
        401: Unauthorized(f"the cluster does not accept these credentials ({connection.where}); log in again"),
        403: Forbidden(
            f"{status.message or path}; ask for the right, or see what you may do with: kubectl auth can-i --list"
        ),
        409: Conflict(_of_conflict(status)),
        410: Gone(status.message),
    }
    if _forbidden_by_schema(status):
        return Refused(_of_schema(status))
    if status.code in TRANSIENT:
        return Unavailable(f"{path}: {status.code} {status.message}")
    return known.get(status.code) or Refused(status.message or f"{path}: {status.code}")


def _forbidden_by_schema(status: ApiStatus) -> bool:
    """Server-side apply answers a misspelt field or a wrong type with 500, which no repeating heals."""
    return status.code == 500 and status.message.startswith(UNTYPED)


def _of_schema(status: ApiStatus) -> str:
    """`failed to create typed patch object (NAMESPACE/NAME; GROUP/VERSION, Kind=KIND): .FIELD: WHY`, maybe for several fields."""
    where, _, why = status.message.removeprefix(UNTYPED).strip().partition("): ")
    name, _, kind = where.removeprefix("(").partition("; ")
    fields = [line.strip().removeprefix(".") for line in why.splitlines() if line.strip() not in {"", "errors:"}]
    return f"{kind.rpartition('=')[2]} {name}: {', '.join(fields) or status.message}; kubectl explain and docs/fields.md list the fields"


def _of_missing(status: ApiStatus, *, path: str, connection: Connection) -> ClientError:
    # A path the server does not know is plain text "404 page not found"; an absent object is a Status with a reason.
    if status.reason != "NotFound" and path.startswith(f"/apis/{GROUP}/"):
        return NotInstalled(
            f"the cluster does not know LoRAAdapter and LoRADeployment ({connection.where}): install the operator "
            "(docs/install.md), or choose the right context"
        )
    return Missing(status.message or f"{path}: not found")


def _of_conflict(status: ApiStatus) -> str:
    if status.reason == "AlreadyExists":
        return status.message
    if "conflict" in status.message and "." in status.message:
        return f"{' '.join(status.message.split())}; change it where that manager keeps it, or take the field over with force"
    return f"{status.message}; read it again and repeat"

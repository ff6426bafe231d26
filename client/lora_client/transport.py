"""HTTP to one API server: logged in, tried again where that is harmless, and with new credentials after a 401.

    harmless to repeat (read, apply, patch, delete) ─► again on 429, 5xx, reset and timeout
    not harmless (create)                           ─► again only where the server cannot have acted: 429, refused connection
    streams and websockets                          ─► once; whoever reads them decides what an end means

Credentials travel with every request, not with the session: renewing them leaves open streams and requests on their way alone.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lora_client.answers import error_of, status_of
from lora_client.connection import Connection
from lora_client.errors import ClientError, NoCluster, TimedOut, Unauthorized, Unavailable
from lora_client.login import Login
from lora_client.retrying import Backoff

__all__ = ["Reconnect", "Transport"]

Reconnect = Callable[[], Awaitable[Connection]]
CONNECT_ATTEMPTS = 3
"""A cluster that refuses connections is reported within about a second, not after the whole backoff."""
LONGEST_LINE = 2**21
JSON = "application/json"


class _Transient(Exception):
    """`unacted`: the server says that it did nothing, so even a create may be sent again."""

    def __init__(
        self, message: str, *, after: float | None = None, refused: bool = False, unacted: bool = False
    ) -> None:
        super().__init__(message)
        self.after = after
        self.refused = refused
        self.unacted = unacted


class Transport:
    """Requests of one connection. `reconnect` loads it anew after a 401; None: credentials do not change."""

    def __init__(
        self, connection: Connection, *, timeout_seconds: float, backoff: Backoff, reconnect: Reconnect | None
    ) -> None:
        self.connection = connection
        self._timeout = timeout_seconds
        self._backoff = backoff
        self._reconnect = reconnect
        self._renewing = asyncio.Lock()
        self._opened: Any = None

    async def close(self) -> None:
        """Gives the connections back."""
        if self._opened is not None:
            await self._opened.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = JSON,
        harmless: bool = True,
    ) -> bytes:
        """The whole answer.

        Raises:
            ClientError: the final answer as a sentence, after as many tries as make sense.
        """
        attempt, renewed = 0, False
        while True:
            attempt += 1
            login = self.connection.login
            try:
                return await self._once(login, method, path, query=query, body=body, content=content)
            except Unauthorized:
                if renewed or self._reconnect is None:
                    raise
                renewed = True
                await self._renew(login)
            except _Transient as error:
                repeat = harmless or error.refused or error.unacted
                last = CONNECT_ATTEMPTS if error.refused else self._backoff.attempts
                if not repeat or attempt >= last:
                    raise _given_up(error, attempt=attempt, where=self.connection.where) from error
                await self._backoff.pause(attempt, after=error.after)

    async def stream(self, path: str, *, query: Mapping[str, str], idle_seconds: float | None) -> Any:
        """The answer (an aiohttp ClientResponse) to a GET, still unread; whoever gets it closes it.

        Raises:
            Unavailable: the connection failed.
        """
        import aiohttp  # noqa: PLC0415 - a quarter of a second that --help must not pay

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=idle_seconds)
        login = self.connection.login
        try:
            response = await self._send(login, "GET", path, query=query, timeout=timeout)
            if response.status == 401 and self._reconnect is not None:
                response.close()
                await self._renew(login)
                response = await self._send(self.connection.login, "GET", path, query=query, timeout=timeout)
        except _Transient as error:
            raise Unavailable(str(error)) from error
        if response.status >= 400:
            status = status_of(response.status, await response.read(), response.headers)
            response.close()
            raise error_of(status, path=path, where=self.connection.where)
        return response

    async def websocket(self, path: str, *, query: Sequence[tuple[str, str]], protocols: tuple[str, ...]) -> Any:
        """An open aiohttp ClientWebSocketResponse. Raises aiohttp's own errors; whoever gets it closes it."""
        import aiohttp  # noqa: PLC0415 - as above

        login = self.connection.login
        try:
            return await self._handshake(login, path, query=query, protocols=protocols)
        except aiohttp.WSServerHandshakeError as error:
            if error.status != 401 or self._reconnect is None:
                raise
            await self._renew(login)
            return await self._handshake(self.connection.login, path, query=query, protocols=protocols)

    async def _renew(self, refused: Login) -> None:
        """New credentials in place of those that were refused; of many tasks that meet a 401 together one fetches them.

        Tokens of login plugins are short-lived, and a client may live for days. Where the caller works (the namespace) stays.
        """
        assert self._reconnect is not None  # noqa: S101 (the caller looked)
        async with self._renewing:
            if self.connection.login is refused:
                fresh = await self._reconnect()
                self.connection = replace(self.connection, login=fresh.login)

    async def _handshake(
        self, login: Login, path: str, *, query: Sequence[tuple[str, str]], protocols: tuple[str, ...]
    ) -> Any:
        url = login.server + path
        return await self._session().ws_connect(
            "ws" + url.removeprefix("http"),
            params=list(query),
            headers=list(login.headers),
            protocols=protocols,
            max_msg_size=0,
            **_options(login),
        )

    async def _once(
        self,
        login: Login,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content: str,
    ) -> bytes:
        import aiohttp  # noqa: PLC0415 - as above

        timeout = aiohttp.ClientTimeout(total=self._timeout, connect=min(10.0, self._timeout))
        response = await self._send(login, method, path, query=query, body=body, content=content, timeout=timeout)
        try:
            data: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Transient(f"{method} {path}: {type(error).__name__} {error}".strip()) from error
        finally:
            response.release()
        if response.status < 400:
            return data
        status = status_of(response.status, data, response.headers)
        if status.transient:
            unacted = status.code == 429  # a 5xx may have been done, whatever Retry-After it carries
            raise _Transient(f"{path}: {status.code} {status.message}", after=status.after, unacted=unacted)
        raise error_of(status, path=path, where=self.connection.where)

    async def _send(
        self,
        login: Login,
        method: str,
        path: str,
        *,
        timeout: Any,  # noqa: ASYNC109 (aiohttp's own timeout, not a deadline of this call)
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = JSON,
    ) -> Any:
        import aiohttp  # noqa: PLC0415 - as above

        headers = [*login.headers, ("Accept", f"{JSON}, */*"), ("Content-Type", content)]
        data = json.dumps(body) if body is not None else None
        options = _options(login) | {"headers": headers, "data": data, "timeout": timeout}
        try:
            return await self._session().request(
                method, login.server + path, params=list((query or {}).items()), **options
            )
        except aiohttp.ClientConnectorCertificateError as error:
            message = f"{login.server} shows a certificate that is not trusted: {error}; correct certificate-authority"
            raise NoCluster(f"{message} of {self.connection.where}") from error
        except aiohttp.ClientConnectorError as error:
            raise _Transient(f"{login.server}: {error.strerror or error}", refused=True) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Transient(f"{method} {path}: {type(error).__name__} {error}".strip()) from error

    def _session(self) -> Any:
        """Made at the first request: a session belongs to a running loop."""
        import aiohttp  # noqa: PLC0415 - as above

        if self._opened is None:
            self._opened = aiohttp.ClientSession(trust_env=True, read_bufsize=LONGEST_LINE)
        return self._opened


def _options(login: Login) -> dict[str, Any]:
    options: dict[str, Any] = {} if login.tls is None else {"ssl": login.tls}
    if login.server_name:
        options["server_hostname"] = login.server_name
    if login.proxy:
        options["proxy"] = login.proxy
    return options


def _given_up(error: _Transient, *, attempt: int, where: str) -> ClientError:
    if error.refused:
        return NoCluster(
            f"the cluster does not answer ({where}): {error}; is it running, is the address right, "
            "does a proxy or VPN stand between?"
        )
    if "TimeoutError" in str(error):
        return TimedOut(f"no answer in time, {attempt} tries: {error} ({where})")
    return Unavailable(f"the API server failed {attempt} times: {error} ({where}); try again later")

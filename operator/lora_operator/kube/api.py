"""The real Kubernetes API over `kubernetes.aio`, plain dictionaries in and out, errors sorted by what to do about them.

Only the transport and the authentication of the client package are used: its typed models drop unknown fields silently.
Writes in flight are bounded, so that a burst of edits does not become a burst of 429s.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.exceptions import ApiException

from lora_operator.api.kinds import Kind
from lora_operator.api.names import FIELD_MANAGER
from lora_operator.kube.client import Json
from lora_operator.kube.errors import AlreadyExists, Conflict, Forbidden, NotFound, Rejected, Retryable
from lora_operator.runtime.metrics import API_WRITES

__all__ = ["PAGE", "ApiServer", "connect"]

TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
WRITES_IN_FLIGHT = 16
PAGE = 100  # objects of a list that are whole in memory at once, for each of eleven kinds (docs/decisions/0060)
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@asynccontextmanager
async def connect() -> AsyncIterator["ApiServer"]:
    """The cluster we run in, or the one of KUBECONFIG."""
    configuration = kubernetes_client.Configuration()
    try:
        kubernetes_config.load_incluster_config(client_configuration=configuration)
    except kubernetes_config.ConfigException:
        await kubernetes_config.load_kube_config(client_configuration=configuration)
    async with kubernetes_client.ApiClient(configuration) as api:
        yield ApiServer(api)


class ApiServer:
    """Implements lora_operator.kube.client.Kube."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._writes = asyncio.Semaphore(WRITES_IN_FLIGHT)

    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> Json | None:
        """A live read; None when there is no such object."""
        try:
            return await self._request("GET", _path(kind, namespace=namespace, name=name))
        except NotFound:
            return None

    async def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "") -> list[Json]:
        """All objects of a kind, paged. Items carry apiVersion and kind, which a list response leaves out, and no managedFields."""
        found: list[Json] = []
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            page = await self._request("GET", _path(kind, namespace=namespace), query=query)
            for item in page.get("items", []):
                item["metadata"].pop("managedFields", None)  # half of an object, and there may be thousands of them
                found.append({"apiVersion": kind.api_version, "kind": kind.kind, **item})
            more = page.get("metadata", {}).get("continue")
            if not more:
                return found
            query["continue"] = more

    async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Json:
        """POST."""
        namespace = manifest["metadata"].get("namespace")
        query = {"fieldManager": FIELD_MANAGER}
        return await self._write("create", kind, "POST", _path(kind, namespace=namespace), query=query, body=manifest)

    async def apply(self, kind: Kind, manifest: Mapping[str, Any], *, force: bool) -> Json:
        """Server-side apply as field manager `lora-operator`."""
        meta = manifest["metadata"]
        path = _path(kind, namespace=meta.get("namespace"), name=meta["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        return await self._write("apply", kind, "PATCH", path, query=query, body=manifest, content=APPLY_PATCH)

    async def patch(
        self, kind: Kind, *, namespace: str, name: str, body: Mapping[str, Any], subresource: str | None = None
    ) -> Json:
        """JSON merge patch; resourceVersion or uid in its metadata are preconditions."""
        path = _path(kind, namespace=namespace, name=name) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": FIELD_MANAGER}
        return await self._write("patch", kind, "PATCH", path, query=query, body=body, content=MERGE_PATCH)

    async def delete(self, kind: Kind, *, namespace: str, name: str, uid: str) -> None:
        """DELETE with a uid precondition; an absent object, or a namesake of another life, is success."""
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._write("delete", kind, "DELETE", _path(kind, namespace=namespace, name=name), body=body)
        except (NotFound, Conflict):
            return

    async def _write(self, verb: str, kind: Kind, method: str, path: str, **options: Any) -> Json:
        API_WRITES.labels(verb=verb, kind=kind.kind).inc()
        async with self._writes:
            return await self._request(method, path, **options)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> Json:
        try:
            method, url, headers, body, _ = await self._api.param_serialize(
                method=method,
                resource_path=path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(method, url, header_params=headers, body=body, _request_timeout=TIMEOUT)
            data = await response.read()
            status, reply_headers = response.status, response.headers
        except ApiException as error:
            raise _sorted(error.status or 0, str(error.body or error.reason), error.headers or {}, path=path) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Retryable(f"{method} {path}: {type(error).__name__} {error}".strip()) from error
        if status >= 400:
            raise _sorted(status, data.decode(errors="replace"), reply_headers, path=path)
        return dict(json.loads(data)) if data else {}


def _path(kind: Kind, *, namespace: str | None, name: str | None = None) -> str:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scope = f"/namespaces/{namespace}" if kind.namespaced and namespace else ""
    return f"{root}{scope}/{kind.plural}" + (f"/{name}" if name else "")


def _sorted(status: int, body: str, headers: Mapping[str, str], *, path: str) -> Exception:
    """An HTTP status as the error that says what to do."""
    message, reason = _message(body)
    if status == 404:
        return NotFound(f"{path}: {message}")
    if status == 409:
        return AlreadyExists(message) if reason == "AlreadyExists" else Conflict(message)
    if status == 403:
        return Forbidden(message)
    if status in {400, 405, 413, 415, 422}:
        return Rejected(message)
    after = headers.get("Retry-After", "")
    return Retryable(f"{path}: {status} {message}", after=float(after) if after.isdigit() else None)


def _message(body: str) -> tuple[str, str]:
    try:
        status = json.loads(body)
    except ValueError:
        return body[:500], ""
    return str(status.get("message", ""))[:1000], str(status.get("reason", ""))

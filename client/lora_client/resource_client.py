"""The two resources themselves: read, listed, applied, deleted, watched, waited for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal, overload

from lora_client.adapter import Adapter
from lora_client.api import Api, Missing
from lora_client.deployment import Deployment
from lora_client.errors import Invalid, NotFound, TimedOut, not_found
from lora_client.names import ADAPTER, LORA_DEPLOYMENT, Kind
from lora_client.ownership import applied_labels, applied_spec
from lora_client.resource import Resource
from lora_client.watching import watch_objects

__all__ = ["ResourceClient", "split_deployment_id"]


class ResourceClient:
    """LoRAAdapters and LoRADeployments of a cluster. Every call takes `namespace`; None means the context's."""

    def __init__(self, api: Api) -> None:
        self.api = api

    @property
    def namespace(self) -> str:
        """Where calls without a namespace go."""
        return self.api.connection.namespace

    async def get_adapter(self, name: str, *, namespace: str | None = None) -> Adapter:
        """One LoRAAdapter.

        Raises:
            NotFound: with the nearest names.
        """
        return Adapter(await self._get(ADAPTER, name, namespace=namespace))

    async def get_deployment(self, name: str, *, namespace: str | None = None) -> Deployment:
        """One LoRADeployment.

        Raises:
            NotFound: with the nearest names.
        """
        return Deployment(await self._get(LORA_DEPLOYMENT, name, namespace=namespace))

    async def get_deployment_status(self, deployment_id: str) -> Deployment:
        """The LoRADeployment behind `[namespace/]name[/revision]`."""
        namespace, name, _ = split_deployment_id(deployment_id)
        return await self.get_deployment(name, namespace=namespace)

    async def list_adapters(
        self, *, namespace: str | None = None, all_namespaces: bool = False, labels: str = ""
    ) -> list[Adapter]:
        """LoRAAdapters by namespace and name."""
        return [
            Adapter(one) for one in await self._list(ADAPTER, namespace, all_namespaces=all_namespaces, labels=labels)
        ]

    async def list_deployments(
        self, *, namespace: str | None = None, all_namespaces: bool = False, labels: str = ""
    ) -> list[Deployment]:
        """LoRADeployments by namespace and name."""
        found = await self._list(LORA_DEPLOYMENT, namespace, all_namespaces=all_namespaces, labels=labels)
        return [Deployment(one) for one in found]

    async def apply(
        self, manifest: Mapping[str, Any], *, force: bool = False, dry_run: bool = False
    ) -> Adapter | Deployment:
        """Server-side apply of a LoRAAdapter or LoRADeployment; a manifest without a namespace goes to the client's.

        Raises:
            Invalid: it is neither of the two, or has no name.
            Conflict: another manager (e.g. a GitOps controller) owns one of the fields, and `force` is not given.
            Refused: the schema or a rule forbids it; the sentence is the server's.
        """
        kind = _kind_of(manifest)
        meta = {"namespace": self.namespace, **manifest.get("metadata", {})}
        if not meta.get("name"):
            raise Invalid("metadata.name: found nothing, expected the object's name; add it")
        try:
            stored = await self.api.apply(kind, {**manifest, "metadata": meta}, force=force, dry_run=dry_run)
        except Missing as error:
            raise NotFound(f"{error}; create the namespace {meta['namespace']}, or choose another") from error
        return Adapter(stored) if kind is ADAPTER else Deployment(stored)

    async def change_deployment(
        self, name: str, spec: Mapping[str, Any], *, namespace: str | None = None, force: bool = False
    ) -> Deployment:
        """Server-side apply of those fields of an existing LoRADeployment's spec; every other field stays, whoever set it.

        A field of `spec` replaces the whole of what this client applied there before: a strategy of another type leaves no rest of
        the older one.

        Raises:
            NotFound: with the nearest names.
            Conflict: another manager (e.g. a GitOps controller) owns one of the fields, and `force` is not given.
        """
        stored = await self._get(LORA_DEPLOYMENT, name, namespace=namespace)
        meta = {
            key: stored["metadata"][key] for key in ("name", "namespace", "uid")
        }  # uid: never create a half one anew
        labels = applied_labels(stored, manager=self.api.field_manager)
        kept = applied_spec(stored, manager=self.api.field_manager)
        manifest = {
            "apiVersion": LORA_DEPLOYMENT.api_version,
            "kind": LORA_DEPLOYMENT.kind,
            "metadata": meta | ({"labels": labels} if labels else {}),
            "spec": {**kept, **spec},
        }
        return Deployment(await self.api.apply(LORA_DEPLOYMENT, manifest, force=force))

    async def delete_adapter(self, name: str, *, namespace: str | None = None) -> None:
        """Deletes a LoRAAdapter; its artifact stays unless artifact.retain is Delete. An absent one is success."""
        await self.api.delete(ADAPTER, namespace=namespace or self.namespace, name=name)

    async def delete_deployment(self, name: str, *, namespace: str | None = None) -> None:
        """Deletes a LoRADeployment: its traffic is taken away first, then its pods. An absent one is success."""
        await self.api.delete(LORA_DEPLOYMENT, namespace=namespace or self.namespace, name=name)

    @overload
    def watch(
        self,
        kind: Literal["adapters"],
        *,
        name: str = "",
        namespace: str | None = None,
        all_namespaces: bool = False,
        labels: str = "",
    ) -> AsyncIterator[tuple[str, Adapter]]: ...
    @overload
    def watch(
        self,
        kind: Literal["deployments"],
        *,
        name: str = "",
        namespace: str | None = None,
        all_namespaces: bool = False,
        labels: str = "",
    ) -> AsyncIterator[tuple[str, Deployment]]: ...
    async def watch(
        self, kind: str, *, name: str = "", namespace: str | None = None, all_namespaces: bool = False, labels: str = ""
    ) -> AsyncIterator[tuple[str, Any]]:
        """(`Added`|`Modified`|`Deleted`, resource): everything as it is now, then every change, for ever.

        It survives cut connections and restarts of the API server; leave the loop to stop.
        """
        kinds = {"adapters": (ADAPTER, Adapter), "deployments": (LORA_DEPLOYMENT, Deployment)}
        if kind not in kinds:
            raise Invalid(f"kind: found {kind!r}, expected adapters or deployments")
        resource, view = kinds[kind]
        scope = None if all_namespaces else namespace or self.namespace
        async for change in watch_objects(self.api, resource, namespace=scope, name=name, labels=labels):
            yield change.type, view(change.object)

    async def wait_for(
        self,
        kind: Literal["adapters", "deployments"],
        name: str,
        holds: Callable[[Any], bool],
        *,
        namespace: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Any:
        """The resource once `holds` is true of it.

        Raises:
            TimedOut: with what was seen last.
            NotFound: it was deleted while it was waited for.
        """
        last: Resource | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                async for change, found in self.watch(kind, name=name, namespace=namespace):
                    last = found
                    if change == "Deleted":
                        raise NotFound(f"{kind.removesuffix('s')} {name} was deleted while it was waited for")
                    if holds(found):
                        return found
        except TimeoutError:
            seen = "it does not exist" if last is None else f"{last.phase} ({last.reason}): {last.message}"
            raise TimedOut(f"{kind.removesuffix('s')} {name} after {timeout_seconds:g} s: {seen}") from None
        raise AssertionError("a watch never ends by itself")

    async def _get(self, kind: Kind, name: str, *, namespace: str | None) -> dict[str, Any]:
        where = namespace or self.namespace
        try:
            return await self.api.get(kind, namespace=where, name=name)
        except Missing:
            found = await self.api.list(kind, namespace=where)
            names = [str(one["metadata"]["name"]) for one in found]
            raise not_found(kind.kind, name, known=names, where=f"namespace {where}") from None

    async def _list(
        self, kind: Kind, namespace: str | None, *, all_namespaces: bool, labels: str
    ) -> list[dict[str, Any]]:
        scope = None if all_namespaces else namespace or self.namespace
        found = await self.api.list(kind, namespace=scope, labels=labels)
        return sorted(found, key=lambda one: (str(one["metadata"].get("namespace", "")), str(one["metadata"]["name"])))


def split_deployment_id(deployment_id: str) -> tuple[str | None, str, str]:
    """`[namespace/]name[/revision]` in its parts; namespace None and revision empty where they are not said.

    Two parts are namespace and name.
    """
    parts = deployment_id.split("/")
    if not all(parts) or len(parts) > 3:
        raise Invalid(f"deployment id: found {deployment_id!r}, expected [namespace/]name or namespace/name/revision")
    if len(parts) == 1:
        return None, parts[0], ""
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _kind_of(manifest: Mapping[str, Any]) -> Kind:
    for kind in (ADAPTER, LORA_DEPLOYMENT):
        if manifest.get("kind") == kind.kind and manifest.get("apiVersion") == kind.api_version:
            return kind
    found = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
    raise Invalid(f"apiVersion, kind: found {found}, expected {ADAPTER.api_version} LoRAAdapter or LoRADeployment")

"""What the shell offers after Tab: names from the cluster that the rest of the line means. Quick and silent, or nothing at all."""

import asyncio
from typing import TYPE_CHECKING

import typer

from loractl.place import Place

if TYPE_CHECKING:
    from lora_client.names import Kind

__all__ = ["complete_adapters", "complete_contexts", "complete_deployments", "complete_either", "complete_namespaces"]

PATIENCE_SECONDS = 2.0
Names = list[str]


def complete_contexts(incomplete: str) -> Names:
    """Contexts of the kubeconfig."""
    from lora_client.connection import list_contexts  # noqa: PLC0415 - only after Tab
    from lora_client.errors import ClientError  # noqa: PLC0415

    try:
        return [one.name for one in list_contexts() if one.name.startswith(incomplete)]
    except ClientError:
        return []


def complete_namespaces(ctx: typer.Context, incomplete: str) -> Names:
    """Namespaces, where one may list them."""
    from lora_client.names import Kind  # noqa: PLC0415

    return _names(ctx, incomplete, Kind("", "v1", "namespaces", "Namespace"))


def complete_adapters(ctx: typer.Context, incomplete: str) -> Names:
    """LoRAAdapters of the namespace."""
    from lora_client.names import ADAPTER  # noqa: PLC0415

    return _names(ctx, incomplete, ADAPTER)


def complete_deployments(ctx: typer.Context, incomplete: str) -> Names:
    """LoRADeployments of the namespace."""
    from lora_client.names import LORA_DEPLOYMENT  # noqa: PLC0415

    return _names(ctx, incomplete, LORA_DEPLOYMENT)


def complete_either(ctx: typer.Context, incomplete: str) -> Names:
    """Both, deployments first."""
    return [*complete_deployments(ctx, incomplete), *complete_adapters(ctx, incomplete)]


def _names(ctx: typer.Context, incomplete: str, kind: "Kind") -> Names:
    said = {**(ctx.parent.params if ctx.parent else {}), **{key: value for key, value in ctx.params.items() if value}}
    place = Place(
        context=str(said.get("context") or ""),
        kubeconfig=str(said.get("kubeconfig") or ""),
        namespace=str(said.get("namespace") or ""),
    )
    try:
        names = asyncio.run(_read(kind, place))
    except Exception:  # noqa: BLE001 - a shell that waits for completions must never see an error
        return []
    return [name for name in names if name.startswith(incomplete)]


async def _read(kind: "Kind", place: Place) -> Names:
    from lora_client.api import Api  # noqa: PLC0415 - only after Tab

    async with await Api.connect(
        kubeconfig=place.kubeconfig or None, context=place.context or None, namespace=place.namespace or None
    ) as api:
        namespace = None if kind.plural == "namespaces" else api.connection.namespace
        # Counted from here: what a slow disk takes to import is not the cluster's fault.
        found = await asyncio.wait_for(api.list(kind, namespace=namespace), PATIENCE_SECONDS)
        return [str(one["metadata"]["name"]) for one in found]

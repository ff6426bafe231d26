"""What the shell offers after Tab: names from the cluster that the rest of the line means. Quick and silent, or nothing at all."""

import asyncio
import os
from typing import TYPE_CHECKING, Any

import typer

from loractl.place import Place

if TYPE_CHECKING:
    from lora_client.names import Kind

__all__ = [
    "complete_adapters", "complete_contexts", "complete_deployments", "complete_either", "complete_namespaces", "complete_revisions",
    "complete_what", "complete_workflows",
]  # fmt: skip

PATIENCE_VARIABLE = "LORA_COMPLETION_SECONDS"
PATIENCE_SECONDS = 2.0
Names = list[str]
Raw = dict[str, Any]


def complete_contexts(ctx: typer.Context, incomplete: str) -> Names:
    """Contexts of the kubeconfig that the line names."""
    from lora_client.errors import ClientError  # noqa: PLC0415 - only after Tab
    from lora_client.kubeconfig import list_contexts  # noqa: PLC0415

    try:
        return [one.name for one in list_contexts(_place(ctx).kubeconfig or None) if one.name.startswith(incomplete)]
    except ClientError:
        return []


def complete_namespaces(ctx: typer.Context, incomplete: str) -> Names:
    """Namespaces, where one may list them."""
    from lora_client.names import Kind  # noqa: PLC0415

    return _names(ctx, incomplete, Kind("", "v1", "namespaces", "Namespace"))


def complete_adapters(ctx: typer.Context, incomplete: str) -> Names:
    """LoRAAdapters of the namespace."""
    from lora_client.names import ADAPTER  # noqa: PLC0415

    return _of_kind(ctx, incomplete, ADAPTER)


def complete_deployments(ctx: typer.Context, incomplete: str) -> Names:
    """LoRADeployments of the namespace."""
    from lora_client.names import LORA_DEPLOYMENT  # noqa: PLC0415

    return _of_kind(ctx, incomplete, LORA_DEPLOYMENT)


def complete_either(ctx: typer.Context, incomplete: str) -> Names:
    """Both, deployments first; `KIND/` means one of them."""
    return [*complete_deployments(ctx, incomplete), *complete_adapters(ctx, incomplete)]


def complete_what(ctx: typer.Context, incomplete: str) -> Names:
    """`[KIND] [NAME]`: a kind or a name, and after a kind only its names."""
    from loractl.parameters import kind_named  # noqa: PLC0415 - that module takes its completions from here

    before = ctx.params.get("what") or ()
    kind = kind_named(str(before[0])) if before else None
    if before:
        return [] if kind is None or len(before) > 1 else _names(ctx, incomplete, kind)
    kinds = [word for word in ("lora", "lorad") if word.startswith(incomplete)]
    return [*kinds, *complete_either(ctx, incomplete)]


def complete_workflows(ctx: typer.Context, incomplete: str) -> Names:
    """Ids of the workflows that the namespace's adapters carry."""
    from lora_client.names import ADAPTER, LABEL_WORKFLOW  # noqa: PLC0415

    found = _asked(ctx, ADAPTER, labels=LABEL_WORKFLOW)
    ids = {str(one["metadata"]["labels"][LABEL_WORKFLOW]) for one in found}
    return sorted(one for one in ids if one.startswith(incomplete))


def complete_revisions(ctx: typer.Context, incomplete: str) -> Names:
    """Stored revisions of the deployment on the line."""
    from lora_client.names import CONTROLLER_REVISION, LABEL_DEPLOYMENT  # noqa: PLC0415

    # An option that still waits for its value leaves the positional words unparsed.
    name = str(ctx.params.get("name") or next(iter(ctx.args), "")).rpartition("/")[2]
    found = _asked(ctx, CONTROLLER_REVISION, labels=f"{LABEL_DEPLOYMENT}={name}") if name else []
    revisions = (str((one.get("data") or {}).get("revision", "")) for one in found)
    return [one for one in revisions if one and one.startswith(incomplete)]


def _of_kind(ctx: typer.Context, incomplete: str, kind: "Kind") -> Names:
    """Names as they are typed so far: bare, or behind `KIND/`."""
    from loractl.parameters import kind_named  # noqa: PLC0415 - as above

    word, slash, begun = incomplete.partition("/")
    if not slash:
        return _names(ctx, incomplete, kind)
    return [f"{word}/{name}" for name in _names(ctx, begun, kind)] if kind_named(word) is kind else []


def _names(ctx: typer.Context, incomplete: str, kind: "Kind") -> Names:
    names = (str(one["metadata"]["name"]) for one in _asked(ctx, kind))
    return [name for name in names if name.startswith(incomplete)]


def _asked(ctx: typer.Context, kind: "Kind", *, labels: str = "") -> list[Raw]:
    try:
        return asyncio.run(_read(kind, _place(ctx), labels=labels))
    except Exception:  # noqa: BLE001 - a shell that waits for completions must never see an error
        return []


def _place(ctx: typer.Context) -> Place:
    """What the line says before or behind the verb."""
    said = {**(ctx.parent.params if ctx.parent else {}), **{key: value for key, value in ctx.params.items() if value}}
    return Place(
        context=str(said.get("context") or ""),
        kubeconfig=str(said.get("kubeconfig") or ""),
        namespace=str(said.get("namespace") or ""),
    )


async def _read(kind: "Kind", place: Place, *, labels: str) -> list[Raw]:
    from lora_client.api import Api  # noqa: PLC0415 - only after Tab

    async with await Api.connect(
        kubeconfig=place.kubeconfig or None, context=place.context or None, namespace=place.namespace or None
    ) as api:
        namespace = None if kind.plural == "namespaces" else api.connection.namespace
        # Counted from here: what a slow disk takes to import is not the cluster's fault.
        return await asyncio.wait_for(api.list(kind, namespace=namespace, labels=labels), _patience())


def _patience() -> float:
    try:
        return float(os.environ.get(PATIENCE_VARIABLE, ""))
    except ValueError:
        return PATIENCE_SECONDS

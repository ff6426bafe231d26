"""get, list, watch: what there is."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from lora_client.errors import ClientError, Invalid, NotFound
from lora_client.names import ADAPTER, LORA_DEPLOYMENT, Kind
from loractl.columns import WorkflowRow, columns_of, one_line, table_of, workflow_table
from loractl.completion import complete_what
from loractl.output import Format
from loractl.parameters import AllNamespaces, find_pair, kind_named, split_name
from loractl.session import Session, cluster_command

__all__ = ["register", "show_kinds"]

PANEL = "Look"
KINDS = (ADAPTER, LORA_DEPLOYMENT)
Raw = Mapping[str, Any]
What = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KIND] [NAME]", help="lora, lorad, or a name; KIND/NAME too.", autocompletion=complete_what
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    cluster_command(app, panel=PANEL, forms=True)(get)
    cluster_command(app, name="list", panel=PANEL, forms=True)(list_workflows)
    cluster_command(app, panel=PANEL)(watch)


async def get(
    session: Session,
    what: What = None,
    *,
    all_namespaces: AllNamespaces = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Then every change, until Ctrl-C.")] = False,
) -> int:
    """LoRAAdapters and LoRADeployments, as `kubectl get` shows them."""
    kinds, name = _meant(what or [])
    if watch:
        return await _watch(session, kinds, name=name, all_namespaces=all_namespaces)
    if name:
        await _show_one(session, kinds, name)
    else:
        await show_kinds(session, kinds, all_namespaces=all_namespaces)
    return 0


async def list_workflows(session: Session, *, all_namespaces: AllNamespaces = False) -> int:
    """Workflows, newest first."""
    found = await session.client.list_workflows(all_namespaces=all_namespaces)
    out = session.out
    if out.structured:
        out.data([workflow_data(one) for one in found])
    elif out.format is Format.NAME:
        for one in found:
            out.line(one.id)
    elif not found:
        where = "any namespace" if all_namespaces else f"namespace {session.namespace}"
        out.say(f"no workflow in {where}; start one with: loractl workflow")
    else:
        out.table(workflow_table([_row(one) for one in found], now=out.now))
    return 0


async def watch(session: Session, what: What = None, *, all_namespaces: AllNamespaces = False) -> int:
    """Every change of LoRAAdapters and LoRADeployments as a line, until Ctrl-C."""
    kinds, name = _meant(what or [])
    return await _watch(session, kinds, name=name, all_namespaces=all_namespaces)


def workflow_data(workflow: Any) -> dict[str, Any]:
    """A workflow for programs."""
    return {
        "workflowId": workflow.id,
        "namespace": workflow.namespace,
        "status": str(workflow.state),
        "reason": workflow.reason,
        "message": workflow.message,
        "adapter": workflow.adapter.name if workflow.adapter else None,
        "deployment": workflow.deployment.name if workflow.deployment else None,
    }


def _row(workflow: Any) -> WorkflowRow:
    created = workflow.adapter or workflow.deployment
    return WorkflowRow(
        workflow_id=workflow.id,
        status=str(workflow.state),
        adapter=workflow.adapter.name if workflow.adapter else "",
        deployment=workflow.deployment.name if workflow.deployment else "",
        created=str(created.raw["metadata"].get("creationTimestamp", "")) if created else "",
    )


def _meant(words: list[str]) -> tuple[tuple[Kind, ...], str]:
    """`[KIND] [NAME]` or `KIND/NAME`; an empty name means all."""
    if not words:
        return KINDS, ""
    kind = kind_named(words[0])
    if kind is not None and len(words) <= 2:
        return (kind,), words[1] if len(words) == 2 else ""
    if len(words) == 1:
        said, name = split_name(words[0])
        return ((said,) if said else KINDS), name
    raise Invalid(f"{' '.join(words)}: expected [KIND] [NAME], with lora or lorad as kind")


async def show_kinds(session: Session, kinds: tuple[Kind, ...], *, all_namespaces: bool) -> None:
    """All resources of the kinds, each kind a table of its own."""
    found = [await _list(session, kind, all_namespaces=all_namespaces) for kind in kinds]
    out = session.out
    if out.structured:
        out.objects([one for objects in found for one in objects])
        return
    if not any(found):
        where = "any namespace" if all_namespaces else f"namespace {session.namespace}"
        out.say(f"no {' and no '.join(kind.kind for kind in kinds)} in {where}")
        return
    shown = [objects for objects in found if objects]
    for index, objects in enumerate(shown):
        if index and out.format is not Format.NAME:
            out.line()
        out.objects(objects, namespaces=all_namespaces)


async def _show_one(session: Session, kinds: tuple[Kind, ...], name: str) -> None:
    text = name if len(kinds) > 1 else f"{kinds[0].short}/{name}"
    deployment, adapter = await find_pair(session.client, text)
    found = deployment or adapter
    if found is None:
        raise NotFound(name)
    session.out.objects([found.raw], one=True)


async def _list(session: Session, kind: Kind, *, all_namespaces: bool) -> list[Raw]:
    client = session.client
    if kind is ADAPTER:
        return [one.raw for one in await client.list_adapters(all_namespaces=all_namespaces)]
    return [one.raw for one in await client.list_deployments(all_namespaces=all_namespaces)]


async def _watch(session: Session, kinds: tuple[Kind, ...], *, name: str, all_namespaces: bool) -> int:
    """One line per change: what it is, and why."""
    session.resume = "the watch ended; the cluster goes on"

    async def tell(kind: Kind) -> None:
        from lora_client.watching import watch_objects  # noqa: PLC0415

        scope = None if all_namespaces else session.namespace
        async for change in watch_objects(session.client.api, kind, namespace=scope, name=name):
            _tell(session, kind, change.type, change.object, namespaces=all_namespaces)

    try:
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(tell(kind))
    except* ClientError as failures:
        raise failures.exceptions[0] from None  # both kinds fail for one reason, which is said once
    return 0


def _tell(session: Session, kind: Kind, change: str, raw: Raw, *, namespaces: bool) -> None:
    out = session.out
    table = table_of(columns_of(kind.kind), [raw], now=out.now, wide=True, namespaces=namespaces)
    cells = dict(zip(table.titles, table.rows[0], strict=True))
    where = f"{cells['NAMESPACE']}/" if namespaces else ""
    parts = [f"{out.now:%H:%M:%S}", f"{kind.short}/{where}{cells['NAME']}"]
    parts += ["Deleted"] if change == "Deleted" else [cells["PHASE"] or "Pending", one_line(cells["MESSAGE"])]
    text = "  ".join(filter(None, parts))
    out.line(text)

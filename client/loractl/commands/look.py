"""status, explain, logs: how one thing stands, and why."""

from typing import Annotated, Any

import typer

from lora_client.errors import Invalid, NotFound
from lora_client.names import ADAPTER, JOB, LABEL_ADAPTER, LABEL_DEPLOYMENT, POD, Kind
from loractl.commands.find import KINDS, show_kinds, workflow_data
from loractl.completion import complete_workflows
from loractl.explain import Explanation, Seen, explain
from loractl.follow import Sight
from loractl.follow import follow as follow_to_the_end
from loractl.objects import name_of, status_of
from loractl.output import Format
from loractl.pages import adapter_page, chain_lines, deployment_page
from loractl.parameters import AllNamespaces, EitherName, Timeout, WatchOption, find_pair, split_name
from loractl.session import Session, cluster_command
from loractl.verdict import OK, Verdict, verdict_of_pair

__all__ = ["follow_pair", "register"]

PANEL = "Look"
EVENT = Kind("", "v1", "events", "Event")


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    cluster_command(app, panel=PANEL, forms=True)(status)
    cluster_command(app, name="explain", panel=PANEL, forms=True)(explain_why)
    cluster_command(app, panel=PANEL)(logs)


async def status(
    session: Session,
    name: EitherName = "",
    *,
    workflow_id: Annotated[
        str,
        typer.Option("--workflow-id", help="Of the workflow instead of a name.", autocompletion=complete_workflows),
    ] = "",
    all_namespaces: AllNamespaces = False,
    watch: WatchOption = False,
    seconds: Timeout = None,
) -> int:
    """How one workflow, deployment or adapter stands; without a name, an overview. The exit code tells the result."""
    if name and workflow_id:
        raise Invalid("give a name or --workflow-id, not both")
    if not name and not workflow_id:
        await show_kinds(session, KINDS, all_namespaces=all_namespaces)
        return OK
    if watch:
        return await follow_pair(session, name=name, workflow_id=workflow_id, seconds=seconds)
    deployment, adapter = await _pair(session, name=name, workflow_id=workflow_id)
    out = session.out
    if out.structured and workflow_id:
        out.data(workflow_data(await session.client.get_workflow_status(workflow_id)))
    elif out.structured or out.format is Format.NAME:
        out.objects([raw for raw in (deployment, adapter) if raw is not None])
    else:
        await _show(session, deployment, adapter, workflow_id=workflow_id)
    return verdict_of_pair(deployment, adapter).exit_code or OK


async def _show(session: Session, deployment: Any, adapter: Any, *, workflow_id: str) -> None:
    out = session.out
    if workflow_id:
        out.line(f"{'Workflow':<16}{workflow_id}   {(await session.client.get_workflow_status(workflow_id)).state}")
    pages = []
    if deployment is not None:
        pages.append(deployment_page(deployment, now=out.now, width=out.width))
    if adapter is not None:
        pages.append(adapter_page(adapter, now=out.now, width=out.width))
    for index, page in enumerate(pages):
        if index or workflow_id:
            out.line()
        for line in page:
            out.line(line)


async def follow_pair(
    session: Session, *, name: str = "", workflow_id: str = "", wanted: str = "", seconds: float | None = None
) -> int:
    """Follows what has that name or id to its end; the exit code of its verdict. `wanted`: a phase that was asked for, and is success."""

    def until(sight: Sight) -> Verdict:
        reached = wanted and sight.deployment is not None and status_of(sight.deployment).get("phase") == wanted
        return Verdict(OK, sight.verdict.sentence) if reached else sight.verdict

    again = f"--workflow-id {workflow_id}" if workflow_id else name
    session.resume = (
        f"the work in the cluster goes on; see it again with: loractl status{session.place.options} {again} --watch"
    )
    verdict = await follow_to_the_end(
        session.client.api,
        session.out,
        lambda: _pair(session, name=name, workflow_id=workflow_id),
        until=until,
        seconds=seconds,
    )
    session.out.sentence(verdict.sentence)
    return verdict.exit_code or OK


async def _pair(session: Session, *, name: str, workflow_id: str) -> tuple[Any, Any]:
    """Raw deployment and adapter, either None."""
    if workflow_id:
        workflow = await session.client.get_workflow_status(workflow_id)
        pair = (workflow.deployment, workflow.adapter)
    else:
        pair = await find_pair(session.client, name)
    deployment, adapter = (None if one is None else one.raw for one in pair)
    return deployment, adapter


async def explain_why(session: Session, name: EitherName) -> int:
    """Why it is not Ready, link by link from the deployment down to the pod, and what to do."""
    deployment, adapter = await _pair(session, name=name, workflow_id="")
    seen = await _seen(session, deployment, adapter)
    told = explain(seen)
    if session.out.structured:
        session.out.data(_told_data(told))
        return OK
    for line in chain_lines([(link.subject, link.sentence) for link in told.links], width=session.out.width):
        session.out.line(line)
    session.out.line()
    if told.todo:
        session.out.line("What to do:")
        for line in (line for todo in told.todo for line in chain_lines([("-", todo)], width=session.out.width)):
            session.out.line(line)
    else:
        session.out.line("Nothing to do." if told.ready else "Nothing to do but wait: it goes on by itself.")
    return OK


def _told_data(told: Explanation) -> dict[str, Any]:
    return {
        "ready": told.ready,
        "cause": {"subject": told.cause.subject, "sentence": told.cause.sentence},
        "chain": [{"subject": link.subject, "sentence": link.sentence, "trouble": link.trouble} for link in told.links],
        "todo": list(told.todo),
    }


async def _seen(session: Session, deployment: Any, adapter: Any) -> Seen:
    """Jobs, pods and events around both. What one may not read is left out, the chain is then shorter."""
    from lora_client.errors import Forbidden  # noqa: PLC0415

    async def read(kind: Kind, labels: str = "") -> list[Any]:
        try:
            return list(await session.client.api.list(kind, namespace=session.namespace, labels=labels))
        except Forbidden as error:
            session.out.say(f"without {kind.plural}: {error}")
            return []

    jobs: list[Any] = []
    pods: list[Any] = []
    if adapter is not None:
        jobs = await read(JOB, f"{LABEL_ADAPTER}={name_of(adapter)}")
        pods += await read(POD, f"{LABEL_ADAPTER}={name_of(adapter)}")
    if deployment is not None:
        pods += await read(POD, f"{LABEL_DEPLOYMENT}={name_of(deployment)}")
    return Seen(deployment=deployment, adapter=adapter, jobs=jobs, pods=pods, events=await read(EVENT))


async def logs(
    session: Session,
    name: EitherName,
    *,
    stage: Annotated[str, typer.Option(help="merge or validate; of an adapter only. Default: both.")] = "",
    container: Annotated[
        str, typer.Option("--container", "-c", help="Of a deployment's pods: runtime, verify, copy.")
    ] = "runtime",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the end, or Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option(min=-1, help="Last lines of every container; -1: all.")] = -1,
    progress: Annotated[bool, typer.Option("--progress", help="Lines of progress too.")] = False,
) -> int:
    """What the Jobs of an adapter or the pods of a deployment write."""
    session.resume = "the log goes on without us"
    deployment, adapter = await find_pair(session.client, name)
    lines = None if tail < 0 else tail
    kind, _ = split_name(name)
    if deployment is not None and not stage and kind is not ADAPTER:
        found = session.client.deployment_logs(deployment.name, container=container, follow=follow, tail=lines)
    elif adapter is not None:
        found = session.client.adapter_logs(adapter.name, stage=stage or None, follow=follow, tail=lines)
    else:
        raise NotFound(f"LoRADeployment {name} names an adapter that is not there, so there are no Jobs")
    shown = 0
    async for line in found:
        if line.progress is None or progress:
            session.out.console.print(f"{line.container}: {line.text}", soft_wrap=True, highlight=False)
            shown += 1
    if not shown:
        session.out.say("there is no log (the pods are gone, or have not started)")
    return OK

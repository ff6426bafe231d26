"""prune: what nobody names any more in the stores of a namespace; shown by default, removed with --delete. The work is a Job's."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import uuid4

import typer

from lora_client.errors import Forbidden, Invalid, TimedOut, Unavailable, not_found
from lora_client.job_image import JobImage, find_job_image
from lora_client.names import ADAPTER, CLAIM, CONTROLLER_REVISION, JOB, LABEL_DEPLOYMENT, LORA_DEPLOYMENT, POD
from lora_client.sources import ClaimPath, parse_claim_path
from loractl.columns import Table
from loractl.objects import name_of
from loractl.output import Format
from loractl.pods import job_ended, trouble_of_pod
from loractl.prune_job import Names, build_prune_job, names_of, stores_of
from loractl.session import Session, cluster_command
from loractl.sizes import amount_of_bytes
from loractl.verdict import OK

__all__ = ["register"]

PANEL = "Cluster"
LOOK_SECONDS = 0.5
START_SECONDS = 120
Raw = Mapping[str, Any]


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    cluster_command(app, panel=PANEL, forms=True)(prune)


async def prune(
    session: Session,
    *,
    store: Annotated[
        str, typer.Option(help="pvc://CLAIM/PATH. Default: every store that a LoRAAdapter of the namespace names.")
    ] = "",
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this nothing is changed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing.")] = False,
    min_age: Annotated[int, typer.Option(min=0, help="Seconds; what is younger stays.")] = 3600,
    image: Annotated[str, typer.Option(help="Image of lora-job. Default: the one that the operator uses.")] = "",
) -> int:
    """Artifacts, half-written directories and cached sources that nobody names; a dry run unless --delete is given."""
    if delete and not yes and not session.out.console.is_terminal:
        raise Invalid("--delete without a terminal to ask at: add --yes, or look first without --delete")
    found = await _names(session)
    stores = [parse_claim_path(store, where="--store")] if store else found[1]
    if not stores:
        raise Invalid(
            f"no LoRAAdapter of namespace {session.namespace} names a store; name it with --store pvc://CLAIM/PATH"
        )
    stores = await _existing(session, stores)
    chosen = await find_job_image(session.client.api, namespace=session.namespace, given=image or None)
    settings: dict[str, Any] = {"image": chosen, "min_age": min_age}
    ask = delete and not yes
    entries = [
        entry for one in stores for entry in await _run(session, one, found[0], delete=delete and not ask, **settings)
    ]
    _show(session, entries)
    doomed = [entry for entry in entries if entry["action"] == "unneeded"]
    if ask and doomed:
        typer.confirm(f"Remove {_sum(doomed)}?", abort=True, err=True)
        names = (await _names(session))[0]  # read again: somebody may have named one meanwhile
        gone = [entry for one in stores for entry in await _run(session, one, names, delete=True, **settings)]
        removed = [entry for entry in gone if entry["action"] == "removed"]
        session.out.line(f"removed {_sum(removed)}")
    return OK


async def _existing(session: Session, stores: Sequence[ClaimPath]) -> list[ClaimPath]:
    """Those whose claim is there: a pod that mounts another waits for ever. Who may not list claims learns it from the pod.

    Raises:
        NotFound: no claim of them is there; with the nearest names.
    """
    try:
        claims = {name_of(one) for one in await session.client.api.list(CLAIM, namespace=session.namespace)}
    except Forbidden:
        return list(stores)
    absent = {
        one: not_found("PersistentVolumeClaim", one.claim, known=claims, where=f"namespace {session.namespace}")
        for one in stores
        if one.claim not in claims
    }
    if len(absent) == len(stores):
        raise absent[stores[0]]
    for one, why in absent.items():
        session.out.say(f"{one} is left out: {why}")
    return [one for one in stores if one not in absent]


async def _names(session: Session) -> tuple[Names, list[ClaimPath]]:
    api, namespace = session.client.api, session.namespace
    adapters = await api.list(ADAPTER, namespace=namespace)
    deployments = await api.list(LORA_DEPLOYMENT, namespace=namespace)
    revisions = await api.list(CONTROLLER_REVISION, namespace=namespace, labels=LABEL_DEPLOYMENT)
    return names_of(adapters, deployments, revisions), stores_of(adapters)


async def _run(
    session: Session, store: ClaimPath, names: Names, *, image: JobImage, min_age: int, delete: bool
) -> list[dict[str, Any]]:
    """One Job; what it found, as it said it."""
    api = session.client.api
    manifest = build_prune_job(
        store,
        names,
        namespace=session.namespace,
        image=image,
        suffix=uuid4().hex[:8],
        delete=delete,
        min_age_seconds=min_age,
    )
    name = manifest["metadata"]["name"]
    await api.create(JOB, manifest)
    session.resume = f"Job {name} goes on; see it with: kubectl -n {session.namespace} logs job/{name}"
    session.out.say(f"Job {name} looks at {store}" + (" and removes" if delete else ""))
    await _finished(session, name)
    entries = await _entries(session, name)
    session.resume = ""
    return [{"store": str(store), **entry} for entry in entries]


async def _finished(session: Session, name: str) -> None:
    """Waits for the Job's end.

    Raises:
        Unavailable: it failed; with its own words.
        TimedOut: its pod does not start.
    """
    api, waited = session.client.api, 0.0
    while True:
        job = await api.get(JOB, namespace=session.namespace, name=name)
        pods = await api.list(POD, namespace=session.namespace, labels=f"batch.kubernetes.io/job-name={name}")
        trouble = next((found for pod in pods if (found := trouble_of_pod(pod))), None)
        ended = job_ended(job)
        if ended == "ended well":
            return
        if ended:
            raise Unavailable(f"Job {name} {ended}: {trouble.words if trouble else 'it left no message'}")
        if waited >= START_SECONDS and trouble is not None:
            await api.delete(JOB, namespace=session.namespace, name=name)
            raise TimedOut(
                f"Job {name} did not start in {START_SECONDS} s and was removed: {trouble.words}; {trouble.mend(name)}"
            )
        await asyncio.sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS


async def _entries(session: Session, name: str) -> list[dict[str, Any]]:
    from lora_client.logs import job_lines  # noqa: PLC0415 - as aiohttp

    lines = [
        line.text async for line in job_lines(session.client.api, namespace=session.namespace, job=name, follow=False)
    ]
    return [found for line in lines if (found := _parsed(line)) is not None]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "action" in found else None


def _show(session: Session, entries: Sequence[Raw]) -> None:
    out = session.out
    if out.structured:
        out.data(list(entries))
        return
    shown = [entry for entry in entries if entry["action"] != "kept" or out.format is Format.WIDE]
    if out.format is Format.NAME:
        for entry in shown:
            out.line(f"{entry['store']}/{entry['path']}")
        return
    if shown:
        out.table(_table(shown))
    kept = len(entries) - len([entry for entry in entries if entry["action"] != "kept"])
    unneeded = [entry for entry in entries if entry["action"] == "unneeded"]
    removed = [entry for entry in entries if entry["action"] == "removed"]
    if removed:
        out.line(f"removed {_sum(removed)}; {kept} kept")
    else:
        out.line(f"named by nobody: {_sum(unneeded)}; {kept} kept; nothing was removed")


def _table(entries: Sequence[Raw]) -> Table:
    """Paths are never cut: they are what a person judges by. The store is told only where there are several."""
    rows = [
        (str(e["action"]), str(e["kind"]), amount_of_bytes(e["bytes"]), str(e["path"]), str(e["why"])) for e in entries
    ]
    stores = [str(e["store"]) for e in entries]
    if len(set(stores)) == 1:
        return Table(("ACTION", "KIND", "SIZE", "PATH", "WHY"), tuple(rows), frozenset({4}))
    joined = tuple((store, *row) for store, row in zip(stores, rows, strict=True))
    return Table(("STORE", "ACTION", "KIND", "SIZE", "PATH", "WHY"), joined, frozenset({0, 5}))


def _sum(entries: Sequence[Raw]) -> str:
    """How many directories and how much they hold."""
    size = amount_of_bytes(sum(int(entry["bytes"]) for entry in entries))
    return f"{len(entries)} {'directory' if len(entries) == 1 else 'directories'}, {size}"

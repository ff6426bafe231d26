"""workflow and cancel: from two directories, or two manifests, to a served model; and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer

from lora_client.errors import Invalid
from lora_client.names import LABEL_WORKFLOW
from loractl.commands.find import workflow_data
from loractl.commands.look import follow_pair
from loractl.completion import complete_workflows
from loractl.output import Format
from loractl.parameters import Timeout, find_pair
from loractl.recipe import Asked, Mode, Quantization, Rollout, Strategy, build_manifests, build_request
from loractl.session import Session, cluster_command
from loractl.verdict import OK, verdict_of_pair

__all__ = ["register"]

PANEL = "Workflow"


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    cluster_command(app, panel=PANEL, forms=True)(workflow)
    cluster_command(app, panel=PANEL, forms=True)(cancel)


async def workflow(
    session: Session,
    name: Annotated[str, typer.Argument(help="Of the new LoRAAdapter.")] = "",
    *,
    file: Annotated[
        list[Path] | None, typer.Option("--filename", "-f", help="Manifests instead of the options below.")
    ] = None,
    base: Annotated[str, typer.Option(help="pvc://CLAIM/PATH, s3://…, hf://OWNER/NAME@REVISION, oci://…")] = "",
    adapter: Annotated[list[str] | None, typer.Option(help="SOURCE or SOURCE=WEIGHT; repeat it for several.")] = None,
    store: Annotated[str, typer.Option(help="Where the merged model is published.")] = "pvc://models/artifacts",
    deployment: Annotated[str, typer.Option(help="Name of the LoRADeployment. Default: NAME.")] = "",
    merge_strategy: Annotated[Strategy | None, typer.Option(help="How several adapters are combined.")] = None,
    quantization: Annotated[Quantization | None, typer.Option(help="Format of the published weights.")] = None,
    validation_mode: Annotated[Mode | None, typer.Option(help="How much is measured.")] = None,
    min_score: Annotated[float | None, typer.Option(min=0, max=1, help="Gate on the overall score.")] = None,
    min_safety_score: Annotated[float | None, typer.Option(min=0, max=1, help="Gate on the safety score.")] = None,
    deploy: Annotated[bool, typer.Option("--deploy/--no-deploy", help="Serve it, or build and validate only.")] = True,
    rollout: Annotated[Rollout | None, typer.Option(help="How a change is rolled out.")] = None,
    profile: Annotated[str, typer.Option(help="Runtime profile of the serving pods.")] = "vllm",
    image: Annotated[str, typer.Option(help="Image instead of the profile's.")] = "",
    gpus: Annotated[int, typer.Option(min=0, help="nvidia.com/gpu per pod.")] = 1,
    replicas: Annotated[int | None, typer.Option(min=0, help="Serving pods.")] = None,
    gateway: Annotated[str, typer.Option(help="[NAMESPACE/]NAME[:LISTENER] of a Gateway.")] = "",
    ingress_class: Annotated[str, typer.Option(help="Class of an Ingress instead.")] = "",
    host: Annotated[list[str] | None, typer.Option(help="Host name of the route; repeat it for several.")] = None,
    target_env: Annotated[str, typer.Option(help="Label of the environment, e.g. production.")] = "",
    force_deploy: Annotated[
        bool, typer.Option("--force-deploy", help="Override soft gates; recorded in status.")
    ] = False,
    workflow_id: Annotated[
        str, typer.Option(help="A UUID4 of your own, so that a repeated call changes nothing.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to the end.")] = True,
    seconds: Timeout = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show the manifests; store nothing.")] = False,
) -> int:
    """Merge, validate and roll out: creates LoRAAdapter and LoRADeployment and follows them; exits by the result."""
    identity = _checked_id(workflow_id)
    if file:
        if name or base or adapter:
            raise Invalid("-f takes its names from the manifests: leave out NAME, --base and --adapter")
        return await _from_files(session, file, identity, wait=wait, seconds=seconds, dry_run=dry_run)
    asked = Asked(
        name=name, base=base, adapters=adapter or [], store=store, deployment=deployment, merge_strategy=merge_strategy,
        quantization=quantization, validation_mode=validation_mode, min_score=min_score, min_safety_score=min_safety_score,
        deploy=deploy, rollout=rollout, profile=profile, image=image, gpus=gpus, replicas=replicas, gateway=gateway,
        hosts=host or [], ingress_class=ingress_class, target_env=target_env, force_deploy=force_deploy,
    )  # fmt: skip
    return await _from_options(session, asked, identity, wait=wait, seconds=seconds, dry_run=dry_run)


async def _from_options(
    session: Session, asked: Asked, identity: str, *, wait: bool, seconds: float | None, dry_run: bool
) -> int:
    missing = [
        word for word, said in (("NAME", asked.name), ("--base", asked.base), ("--adapter", asked.adapters)) if not said
    ]
    if missing:
        raise Invalid(
            f"missing {' and '.join(missing)}: name the new adapter, its base and its LoRA, or give manifests with -f"
        )
    request = build_request(asked)
    if dry_run:
        manifests = build_manifests(request, workflow_id=identity, namespace=session.namespace)
        return await _show(session, manifests)
    await session.client.run_workflow(request, workflow_id=identity, wait=False)
    return await _report(session, identity, wait=wait, seconds=seconds)


async def _from_files(
    session: Session, files: Sequence[Path], identity: str, *, wait: bool, seconds: float | None, dry_run: bool
) -> int:
    manifests = [_labelled(one, identity, namespace=session.place.namespace) for one in read_manifests(files)]
    if dry_run:
        return await _show(session, manifests)
    # All are checked before any is stored: half a workflow would be worse than none.
    for one in manifests:
        await session.client.apply(one, dry_run=True)
    stored = [await session.client.apply(one) for one in manifests]
    session.move_to(stored[0].namespace)
    return await _report(session, identity, wait=wait, seconds=seconds)


async def _show(session: Session, manifests: Sequence[dict[str, Any]]) -> int:
    """What would be stored, as the API server completes it."""
    stored = [(await session.client.apply(one, dry_run=True)).raw for one in manifests]
    if session.out.format is Format.TABLE:
        session.out.format = Format.YAML
    session.out.objects(stored)
    return OK


def read_manifests(files: Sequence[Path]) -> list[dict[str, Any]]:
    """One LoRAAdapter and at most one LoRADeployment from YAML or JSON files, the adapter first."""
    import yaml  # noqa: PLC0415 - only -f needs it

    found: list[dict[str, Any]] = []
    for file in files:
        try:
            documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise Invalid(f"-f {file}: {error.strerror}; check the path") from None
        except (yaml.YAMLError, ValueError) as error:
            raise Invalid(f"-f {file}: not YAML: {' '.join(str(error).split())}") from None
        found += [one for one in documents if one]
    kinds = [str(one.get("kind")) if isinstance(one, dict) else type(one).__name__ for one in found]
    if (
        kinds.count("LoRAAdapter") != 1
        or kinds.count("LoRADeployment") > 1
        or set(kinds) - {"LoRAAdapter", "LoRADeployment"}
    ):
        raise Invalid(
            f"-f: found {', '.join(kinds) or 'nothing'}, expected one LoRAAdapter and at most one LoRADeployment"
        )
    return sorted(found, key=lambda one: str(one["kind"]))


def _labelled(manifest: dict[str, Any], identity: str, *, namespace: str) -> dict[str, Any]:
    meta = dict(manifest.get("metadata") or {})
    if namespace and meta.get("namespace") not in (None, namespace):
        raise Invalid(
            f"--namespace {namespace}: the manifest of {meta.get('name')} says namespace {meta['namespace']}; leave one out"
        )
    meta |= {"namespace": namespace} if namespace else {}
    meta["labels"] = {**(meta.get("labels") or {}), LABEL_WORKFLOW: identity}
    return {**manifest, "metadata": meta}


async def _report(session: Session, identity: str, *, wait: bool, seconds: float | None) -> int:
    out = session.out
    if not wait:
        out.say(f"follow it with: loractl status{session.place.options} --workflow-id {identity} --watch")
        return await _result(session, identity, code=OK)
    out.say(f"workflow {identity}")
    if not out.structured:
        return await follow_pair(session, workflow_id=identity, seconds=seconds)
    found = await session.client.wait_for_workflow(identity, timeout_seconds=seconds)
    raws = [None if one is None else one.raw for one in (found.deployment, found.adapter)]
    return await _result(session, identity, code=verdict_of_pair(*raws).exit_code or OK)


async def _result(session: Session, identity: str, *, code: int) -> int:
    found = await session.client.get_workflow_status(identity)
    if session.out.structured:
        session.out.data(workflow_data(found))
    else:
        session.out.line(identity if session.out.format is Format.NAME else f"workflow {identity} {found.state}")
    return code


async def cancel(
    session: Session,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW-ID|NAME",
            help="Id of the workflow, or a name of one of its objects.",
            autocompletion=complete_workflows,
        ),
    ],
) -> int:
    """Stop a workflow: its Jobs end, its candidate is given up; what was stable goes on serving."""
    identity = what if _is_uuid(what) else await _id_of(session, what)
    done = await session.client.cancel_workflow(identity)
    if session.out.structured:
        session.out.data(workflow_data(done))
    else:
        session.out.line(f"workflow {identity} {done.state}")
    return OK


async def _id_of(session: Session, name: str) -> str:
    deployment, adapter = await find_pair(session.client, name)
    for found in (deployment, adapter):
        if found is not None and found.workflow_id:
            return str(found.workflow_id)
    raise Invalid(
        f"{name} belongs to no workflow (it has no label {LABEL_WORKFLOW}); suspend or delete the resource instead"
    )


def _checked_id(text: str) -> str:
    if not text:
        return str(uuid4())
    if not _is_uuid(text):
        raise Invalid(f"--workflow-id: found {text!r}, expected a UUID, e.g. {uuid4()}")
    return text


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False

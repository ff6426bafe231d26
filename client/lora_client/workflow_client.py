"""Workflows: both resources of a request created, followed to the end, found again, cancelled."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from lora_client.adapter import Adapter
from lora_client.api import Missing
from lora_client.copying import copy_directory
from lora_client.deployment import Deployment
from lora_client.errors import Invalid, Refused, TimedOut, not_found
from lora_client.logs import Progress
from lora_client.names import (
    ADAPTER,
    ANNOTATION_WORKFLOW_DEPLOYMENT,
    LABEL_CANCELLED,
    LABEL_WORKFLOW,
    LORA_DEPLOYMENT,
    Kind,
    Verb,
)
from lora_client.request_client import RequestClient
from lora_client.sources import ClaimPath, LocalDirectory, parse_claim_path, parse_source
from lora_client.watching import watch_objects
from lora_client.workflow import (
    Workflow,
    WorkflowRequest,
    WorkflowState,
    build_adapter,
    build_deployment,
    check_name,
    state_of,
)

__all__ = ["WorkflowClient"]

LOOK_AGAIN_SECONDS = 0.5
LOOK_ANYWAY_SECONDS = 5.0
CANCEL_LOOKS = 5


class WorkflowClient(RequestClient):
    """A workflow is its two objects (workflow.py); nothing else is stored."""

    async def run_workflow(
        self,
        request: WorkflowRequest,
        *,
        namespace: str | None = None,
        workflow_id: str | None = None,
        wait: bool = True,
        timeout_seconds: float | None = None,
        force: bool = False,
        image: str | None = None,
        copied: Callable[[Progress], None] = lambda _: None,
        seen: Callable[[Workflow], None] = lambda _: None,
    ) -> Workflow:
        """Creates the LoRAAdapter and the LoRADeployment of a request and follows them to the end.

        Args:
            workflow_id: a UUID4 of your own; None makes one. The same id and request again change nothing.
            wait: False returns as soon as both objects are stored.
            timeout_seconds: of the waiting; None waits as long as it takes. The workflow itself goes on after it.
            force: take over fields that another field manager owns.
            image: of the pod that copies local directories; None finds the job image (job_image.py).
            copied: called while local directories are copied to the store's claim.
            seen: called with every new state.

        Returns:
            The workflow in a final state (`.succeeded` says which), or as it is now when not waited for.

        Raises:
            Invalid: a part of the request cannot be understood.
            Refused, Conflict: the API server does not accept one of the objects; nothing else was created.
            TimedOut: with the last state; the workflow goes on.
        """
        where = namespace or self.namespace
        identity = workflow_id or str(uuid4())
        check_name(request.name, where="name")
        check_name(request.deployment_name, where="deployment")
        if not request.adapters:
            raise Invalid("adapters: found none, expected at least one")
        parsed = [parse_source(request.base, where="base")]
        parsed += [parse_source(one.source, where=f"adapters[{one.name}]") for one in request.adapters]
        store = parse_claim_path(request.store, where="store")
        placed = [await self.place(one, store=store, namespace=where, image=image, copied=copied) for one in parsed]
        request = _with_digests(request, placed)
        base, *adapters = [source for source, _ in placed]
        adapter = build_adapter(request, workflow_id=identity, namespace=where, base=base, adapters=adapters)
        deployment = build_deployment(request, workflow_id=identity, namespace=where)
        if request.deploy:
            # Both are checked before either is stored: half a workflow would be worse than none.
            await self.apply(deployment, force=force, dry_run=True)
        await self.apply(adapter, force=force)
        if request.deploy:
            await self.apply(deployment, force=force)
        if not wait:
            return await self.get_workflow_status(identity, namespace=where)
        return await self.wait_for_workflow(identity, namespace=where, timeout_seconds=timeout_seconds, seen=seen)

    async def place(
        self,
        source: dict[str, Any] | LocalDirectory,
        *,
        store: ClaimPath,
        namespace: str | None = None,
        image: str | None = None,
        copied: Callable[[Progress], None] = lambda _: None,
    ) -> tuple[dict[str, Any], str]:
        """A parsed source as the resources say it, and its digest (empty where nothing was copied).

        A local directory is copied below `sources/` of the store through a short-lived pod; one that lies there already is not
        copied again. Arguments as those of run_workflow.
        """
        if not isinstance(source, LocalDirectory):
            return source, ""
        done = await copy_directory(
            self.api, source.path, store=store, namespace=namespace or self.namespace, image=image, progress=copied
        )
        return done.place.source, done.digest

    async def wait_for_workflow(
        self,
        workflow_id: str,
        *,
        namespace: str | None = None,
        timeout_seconds: float | None = None,
        seen: Callable[[Workflow], None] = lambda _: None,
    ) -> Workflow:
        """Follows a workflow until its state is final.

        Raises:
            TimedOut: with the last state; the workflow goes on.
        """
        where = namespace or self.namespace
        last = await self.get_workflow_status(workflow_id, namespace=where)
        seen(last)
        news = asyncio.Event()
        watches = [
            asyncio.create_task(self._announce(kind, news, namespace=where, labels=f"{LABEL_WORKFLOW}={workflow_id}"))
            for kind in (ADAPTER, LORA_DEPLOYMENT)
        ]
        try:
            async with asyncio.timeout(timeout_seconds):
                while not last.state.final:
                    await _soon(news)
                    found = await self.get_workflow_status(workflow_id, namespace=where)
                    if (found.state, found.reason, found.message) != (last.state, last.reason, last.message):
                        seen(found)
                    last = found
        except TimeoutError:
            raise TimedOut(
                f"workflow {workflow_id} after {timeout_seconds:g} s: {last.state} ({last.reason}): {last.message}; it goes on"
            ) from None
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
        return last

    async def _announce(self, kind: Kind, news: asyncio.Event, *, namespace: str, labels: str) -> None:
        """Sets `news` at every change. Where it may not watch, the regular look of `_soon` remains, and it raises what is wrong."""
        async for _ in watch_objects(self.api, kind, namespace=namespace, labels=labels):
            news.set()

    async def get_workflow_status(self, workflow_id: str, *, namespace: str | None = None) -> Workflow:
        """One workflow.

        Raises:
            NotFound: no object carries this id in the namespace.
        """
        where = namespace or self.namespace
        label = f"{LABEL_WORKFLOW}={workflow_id}"
        adapters = await self.list_adapters(namespace=where, labels=label)
        deployments = await self.list_deployments(namespace=where, labels=label)
        if not adapters and not deployments:
            known = [one.id for one in await self.list_workflows(namespace=where)]
            raise not_found("workflow", workflow_id, known=known, where=f"namespace {where}")
        adapter = adapters[0] if adapters else None
        deployment = deployments[0] if deployments else await self._fed_by(adapter)
        return state_of(workflow_id, adapter=adapter, deployment=deployment)

    async def _fed_by(self, adapter: Adapter | None) -> Deployment | None:
        """The deployment that the adapter's workflow made, after a later workflow took its label over."""
        name = "" if adapter is None else adapter.annotations.get(ANNOTATION_WORKFLOW_DEPLOYMENT, "")
        if adapter is None or not name:
            return None
        try:
            return Deployment(await self.api.get(LORA_DEPLOYMENT, namespace=adapter.namespace, name=name))
        except Missing:
            return None

    async def list_workflows(self, *, namespace: str | None = None, all_namespaces: bool = False) -> list[Workflow]:
        """All workflows, newest first."""
        adapters = await self.list_adapters(namespace=namespace, all_namespaces=all_namespaces)
        deployments = await self.list_deployments(namespace=namespace, all_namespaces=all_namespaces)
        by_name = {(one.namespace, one.name): one for one in deployments}
        by_id = {one.workflow_id: one for one in deployments if one.workflow_id}
        found = {}
        for adapter in (one for one in adapters if one.workflow_id):
            named = by_name.get((adapter.namespace, adapter.annotations.get(ANNOTATION_WORKFLOW_DEPLOYMENT, "")))
            deployment = by_id.get(adapter.workflow_id) or named
            found[adapter.workflow_id] = state_of(adapter.workflow_id, adapter=adapter, deployment=deployment)
        for identity, deployment in by_id.items():
            if identity not in found:
                found[identity] = state_of(identity, adapter=None, deployment=deployment)
        return sorted(found.values(), key=lambda one: str(one.started or ""), reverse=True)

    async def cancel_workflow(self, workflow_id: str, *, namespace: str | None = None) -> Workflow:
        """Stops a workflow: its Jobs end, its candidate is given up; what was stable before goes on serving.

        Both objects get the label `loraops.dev/workflow-cancelled=true`, the adapter is suspended, and an abort is requested
        where a candidate of this workflow is under way. A cancelled workflow stays as it is.

        Raises:
            Refused: it is completed or failed already.
        """
        workflow = await self.get_workflow_status(workflow_id, namespace=namespace)
        if workflow.state is WorkflowState.CANCELLED:
            return workflow
        if workflow.state.final:
            raise Refused(f"workflow {workflow_id} is {workflow.state} already; nothing was cancelled")
        mark: dict[str, Any] = {"metadata": {"labels": {LABEL_CANCELLED: "true"}}}
        if workflow.adapter is not None:
            body = mark | {"spec": {"suspend": True}}
            await self.api.patch(ADAPTER, namespace=workflow.namespace, name=workflow.adapter.name, body=body)
        own = workflow.deployment
        if own is not None and own.workflow_id == workflow_id:
            await self.api.patch(LORA_DEPLOYMENT, namespace=own.namespace, name=own.name, body=mark)
            await self._abort_candidate(own, adapter=own.adapter)
        return await self.get_workflow_status(workflow_id, namespace=workflow.namespace)

    async def _abort_candidate(self, deployment: Deployment, *, adapter: str) -> None:
        """Looks a few times: a rollout may have begun in the moment in which the adapter was suspended."""
        asked = ""
        for _ in range(CANCEL_LOOKS):
            found = await self.get_deployment(deployment.name, namespace=deployment.namespace)
            candidate = found.running
            if candidate is not None and candidate.adapter == adapter and candidate.revision != asked:
                asked = candidate.revision
                await self.request(
                    found.name, Verb.ABORT, revision=asked, namespace=found.namespace, answer_seconds=None
                )
            if candidate is None and (asked or found.current):
                return
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def _soon(news: asyncio.Event) -> None:
    """Until something changed, but not for ever: a watch may be forbidden where a read is not."""
    try:
        async with asyncio.timeout(LOOK_ANYWAY_SECONDS):
            await news.wait()
    except TimeoutError:
        return
    news.clear()


def _with_digests(request: WorkflowRequest, placed: Sequence[tuple[dict[str, Any], str]]) -> WorkflowRequest:
    """The digests of copied directories, so that the fetch step checks once more what the merge will read."""
    (_, base), *others = placed
    adapters = [
        replace(one, digest=one.digest or digest) for one, (_, digest) in zip(request.adapters, others, strict=True)
    ]
    return replace(request, base_digest=request.base_digest or base, adapters=adapters)

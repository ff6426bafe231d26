"""LoRAClient: what a program does with LoRA adapters on a cluster, asynchronously.

    async with LoRAClient.connect() as client:
        workflow = await client.run_workflow(request)

Reads and writes only LoRAAdapters and LoRADeployments (and reads their pods' logs and stored revisions): everything else is
the operator's. One client may be shared by many tasks of one event loop. For plain calls there is lora_client.sync.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal, overload
from uuid import uuid4

from lora_client.api import Api, Missing
from lora_client.copying import copy_directory
from lora_client.errors import Invalid, NotFound, Refused, TimedOut, not_found
from lora_client.logs import LogLine, Progress, job_lines, pod_lines
from lora_client.names import (
    ADAPTER,
    ANNOTATION_WORKFLOW_DEPLOYMENT,
    CONTROLLER_REVISION,
    FIELD_MANAGER,
    GROUP,
    LABEL_CANCELLED,
    LABEL_DEPLOYMENT,
    LABEL_WORKFLOW,
    LORA_DEPLOYMENT,
    POD,
    Kind,
    Verb,
)
from lora_client.report import read_report
from lora_client.requests import check_revision, default_revision, parse_revisions, request_patch
from lora_client.resource import Adapter, Deployment, Request, Resource, Revision
from lora_client.retrying import Backoff
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

__all__ = ["LoRAClient"]

LOOK_AGAIN_SECONDS = 0.5
LOOK_ANYWAY_SECONDS = 5.0
CANCEL_LOOKS = 5
ADAPTER_STAGES = ("merge", "validate")


class LoRAClient:
    """A cluster, seen through its LoRA resources. Every call takes `namespace`; None means the context's."""

    def __init__(self, api: Api) -> None:
        self.api = api

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
        timeout_seconds: float = 30.0,
        backoff: Backoff | None = None,
        field_manager: str = FIELD_MANAGER,
    ) -> AsyncIterator["LoRAClient"]:
        """The cluster that kubectl would talk to with the same options; in a pod without a kubeconfig, the pod's own.

        Args:
            timeout_seconds: of one request to the API server, not of a workflow.
            field_manager: the name under which fields are owned in server-side apply.

        Raises:
            NoCluster: no kubeconfig with a current context, and not in a pod.
            NotFound: no such context.
        """
        async with await Api.connect(
            kubeconfig=kubeconfig,
            context=context,
            namespace=namespace,
            timeout_seconds=timeout_seconds,
            backoff=backoff,
            field_manager=field_manager,
        ) as api:
            yield cls(api)

    @property
    def namespace(self) -> str:
        """Where calls without a namespace go."""
        return self.api.connection.namespace

    # ---- the two resources -----------------------------------------------------------------------------------------
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

    # ---- requests ---------------------------------------------------------------------------------------------------
    async def request(
        self,
        name: str,
        verb: Verb,
        *,
        revision: str | None = None,
        namespace: str | None = None,
        answer_seconds: float | None = 10.0,
    ) -> Request:
        """Asks the operator for something once: promote, promote-full, pause, resume, abort, retry, rollback-to.

        Args:
            revision: None takes the one that is meant (requests.py); for rollback-to a unique beginning is enough.
            answer_seconds: how long the operator's answer is waited for; None does not wait, and the result is empty.

        Raises:
            Refused: it makes no sense now, e.g. promote without a rollout.
            TimedOut: the operator did not answer; the request stays and is answered later.
        """
        deployment = await self.get_deployment(name, namespace=namespace)
        revisions = await self.revisions(name, namespace=namespace) if verb is Verb.ROLLBACK_TO else []
        if revision is None:
            revision = default_revision(verb, deployment, revisions=revisions)
        elif verb is Verb.ROLLBACK_TO:
            revision = check_revision(revision, deployment, revisions=revisions)
        patch = request_patch(verb, revision=revision, nonce=uuid4().hex[:8])
        value = patch["metadata"]["annotations"][verb.annotation]
        await self.api.patch(LORA_DEPLOYMENT, namespace=deployment.namespace, name=name, body=patch)
        if answer_seconds is None:
            return Request(verb=str(verb), value=value, time="", result="")
        return await self._answer(deployment, verb, value=value, seconds=answer_seconds)

    async def _answer(self, deployment: Deployment, verb: Verb, *, value: str, seconds: float) -> Request:
        def answered(found: Deployment) -> bool:
            answer = found.requests.get(str(verb))
            return answer is not None and answer.value == value

        try:
            found = await self.wait_for(
                "deployments", deployment.name, answered, namespace=deployment.namespace, timeout_seconds=seconds
            )
        except TimedOut as error:
            raise TimedOut(
                f"the operator did not answer {verb} within {seconds:g} s; the request stays and is answered when it runs: "
                "look with kubectl get pods -A -l app.kubernetes.io/name=lora-operator"
            ) from error
        answer: Request = found.requests[str(verb)]
        return answer

    async def rollback_deployment(
        self, deployment_id: str, *, revision: str | None = None, answer_seconds: float | None = 10.0
    ) -> Request:
        """Back to `revision`; None: to what served before (during a rollout: to what serves now).

        The left revision is held: it does not start again until the spec names another or retry is asked.
        """
        namespace, name, _ = split_deployment_id(deployment_id)
        return await self.request(
            name, Verb.ROLLBACK_TO, revision=revision, namespace=namespace, answer_seconds=answer_seconds
        )

    async def revisions(self, name: str, *, namespace: str | None = None) -> list[Revision]:
        """Stored versions of a LoRADeployment, newest first: what rollback-to can go back to."""
        found = await self.api.list(
            CONTROLLER_REVISION, namespace=namespace or self.namespace, labels=f"{LABEL_DEPLOYMENT}={name}"
        )
        return parse_revisions(found)

    async def retry_adapter(self, name: str, *, namespace: str | None = None) -> None:
        """One more attempt of the Job that failed."""
        adapter = await self.get_adapter(name, namespace=namespace)
        body = {"metadata": {"annotations": {f"{GROUP}/retry": uuid4().hex[:8]}}}
        await self.api.patch(ADAPTER, namespace=adapter.namespace, name=name, body=body)

    async def suspend_adapter(self, name: str, *, suspended: bool, namespace: str | None = None) -> Adapter:
        """Stops a build (its Jobs are deleted), or lets it go on."""
        adapter = await self.get_adapter(name, namespace=namespace)
        body = {"spec": {"suspend": suspended}}
        return Adapter(await self.api.patch(ADAPTER, namespace=adapter.namespace, name=name, body=body))

    # ---- logs -------------------------------------------------------------------------------------------------------
    async def adapter_logs(
        self,
        name: str,
        *,
        namespace: str | None = None,
        stage: str | None = None,
        follow: bool = False,
        tail: int | None = None,
    ) -> AsyncIterator[LogLine]:
        """Lines of the merge and validate Jobs that the adapter's status names; with `follow` until they end.

        Lines with `.progress` say how far the stage is. Raises Invalid for a stage other than merge and validate.
        """
        stages = ADAPTER_STAGES if stage is None else (stage,)
        if not set(stages) <= set(ADAPTER_STAGES):
            raise Invalid(f"stage: found {stage!r}, expected merge or validate")
        for one in stages:
            adapter = await self.get_adapter(name, namespace=namespace)
            while follow and not adapter.job(one) and _building(adapter):
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                adapter = await self.get_adapter(name, namespace=namespace)
            job = adapter.job(one)
            if job:
                lines = job_lines(self.api, namespace=adapter.namespace, job=job, follow=follow, tail=tail)
                async for line in lines:
                    yield line

    async def deployment_logs(
        self,
        name: str,
        *,
        namespace: str | None = None,
        container: str = "runtime",
        follow: bool = False,
        tail: int | None = 200,
    ) -> AsyncIterator[LogLine]:
        """Lines of the serving pods, pod after pod; with `follow` those of the newest pod as they come."""
        deployment = await self.get_deployment(name, namespace=namespace)
        pods = await self.api.list(POD, namespace=deployment.namespace, labels=f"{LABEL_DEPLOYMENT}={name}")
        newest = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
        for pod in newest[:1] if follow else newest:
            async for line in pod_lines(
                self.api,
                namespace=deployment.namespace,
                pod=str(pod["metadata"]["name"]),
                container=container,
                follow=follow,
                tail=tail,
            ):
                yield line

    async def report(
        self,
        name: str,
        *,
        namespace: str | None = None,
        format: str = "json",  # noqa: A002 (what people call it)
        image: str | None = None,
    ) -> bytes:
        """The last validation's report, `json`, `html` or `rows`, read from the claim through a short-lived pod.

        The scores and gates are in `adapter.validation` already; this is the whole of it, item by item.
        """
        adapter = await self.get_adapter(name, namespace=namespace)
        return await read_report(self.api, adapter, format=format, image=image)

    # ---- workflows --------------------------------------------------------------------------------------------------
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
            image: of the pod that copies local directories; None finds the job image (claim_pod.py).
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

    # ---- below ------------------------------------------------------------------------------------------------------
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


def _building(adapter: Adapter) -> bool:
    """A Job may still come."""
    return not adapter.stalled and adapter.phase not in {"Ready", "Rejected", "Failed", "Suspended"}

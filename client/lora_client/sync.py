"""The client for programs that are not asynchronous: the same calls, plain.

An event loop of its own runs in a thread, so it works anywhere, also inside a notebook's running loop.

    with SyncLoRAClient() as client:
        client.run_workflow(request)
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal, Self, TypeVar

from lora_client.adapter import Adapter
from lora_client.client import LoRAClient
from lora_client.deployment import Deployment, Request, Revision
from lora_client.logs import LogLine
from lora_client.names import Verb
from lora_client.workflow import Workflow, WorkflowRequest

__all__ = ["SyncLoRAClient"]

T = TypeVar("T")
_END = object()
CLEAN_UP_SECONDS = 10.0


class SyncLoRAClient:
    """Arguments as those of LoRAClient.connect; methods as LoRAClient's, whose documentation holds."""

    def __init__(self, **connection: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lora-client", daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        try:
            self.asynchronous: LoRAClient = self._run(self._stack.enter_async_context(LoRAClient.connect(**connection)))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes connections and ends the thread."""
        self._run(self._stack.aclose())
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        ended = threading.Event()

        async def whole() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(whole(), self._loop)
        try:
            return future.result()
        except BaseException:
            # An interrupted caller must leave neither the work running behind its back nor a pod that it started.
            future.cancel()
            ended.wait(CLEAN_UP_SECONDS)
            raise

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> Any:
            return await anext(source, _END)

        async def closing() -> None:
            await source.aclose()  # type: ignore[attr-defined]

        try:
            while (item := self._run(following())) is not _END:
                yield item
        finally:
            self._run(closing())

    @property
    def namespace(self) -> str:
        """Where calls without a namespace go."""
        return self.asynchronous.namespace

    def get_adapter(self, name: str, *, namespace: str | None = None) -> Adapter:
        """LoRAClient.get_adapter."""
        return self._run(self.asynchronous.get_adapter(name, namespace=namespace))

    def get_deployment(self, name: str, *, namespace: str | None = None) -> Deployment:
        """LoRAClient.get_deployment."""
        return self._run(self.asynchronous.get_deployment(name, namespace=namespace))

    def get_deployment_status(self, deployment_id: str) -> Deployment:
        """LoRAClient.get_deployment_status."""
        return self._run(self.asynchronous.get_deployment_status(deployment_id))

    def list_adapters(self, **options: Any) -> list[Adapter]:
        """LoRAClient.list_adapters."""
        return self._run(self.asynchronous.list_adapters(**options))

    def list_deployments(self, **options: Any) -> list[Deployment]:
        """LoRAClient.list_deployments."""
        return self._run(self.asynchronous.list_deployments(**options))

    def apply(self, manifest: Mapping[str, Any], *, force: bool = False, dry_run: bool = False) -> Adapter | Deployment:
        """LoRAClient.apply."""
        return self._run(self.asynchronous.apply(manifest, force=force, dry_run=dry_run))

    def change_deployment(self, name: str, spec: Mapping[str, Any], **options: Any) -> Deployment:
        """LoRAClient.change_deployment."""
        return self._run(self.asynchronous.change_deployment(name, spec, **options))

    def run_workflow(self, request: WorkflowRequest, **options: Any) -> Workflow:
        """LoRAClient.run_workflow."""
        return self._run(self.asynchronous.run_workflow(request, **options))

    def wait_for_workflow(self, workflow_id: str, **options: Any) -> Workflow:
        """LoRAClient.wait_for_workflow."""
        return self._run(self.asynchronous.wait_for_workflow(workflow_id, **options))

    def get_workflow_status(self, workflow_id: str, *, namespace: str | None = None) -> Workflow:
        """LoRAClient.get_workflow_status."""
        return self._run(self.asynchronous.get_workflow_status(workflow_id, namespace=namespace))

    def list_workflows(self, *, namespace: str | None = None, all_namespaces: bool = False) -> list[Workflow]:
        """LoRAClient.list_workflows."""
        return self._run(self.asynchronous.list_workflows(namespace=namespace, all_namespaces=all_namespaces))

    def cancel_workflow(self, workflow_id: str, *, namespace: str | None = None) -> Workflow:
        """LoRAClient.cancel_workflow."""
        return self._run(self.asynchronous.cancel_workflow(workflow_id, namespace=namespace))

    def request(self, name: str, verb: Verb, **options: Any) -> Request:
        """LoRAClient.request."""
        return self._run(self.asynchronous.request(name, verb, **options))

    def rollback_deployment(self, deployment_id: str, **options: Any) -> Request:
        """LoRAClient.rollback_deployment."""
        return self._run(self.asynchronous.rollback_deployment(deployment_id, **options))

    def revisions(self, name: str, *, namespace: str | None = None) -> list[Revision]:
        """LoRAClient.revisions."""
        return self._run(self.asynchronous.revisions(name, namespace=namespace))

    def wait_for(
        self, kind: Literal["adapters", "deployments"], name: str, holds: Callable[[Any], bool], **options: Any
    ) -> Any:
        """LoRAClient.wait_for."""
        return self._run(self.asynchronous.wait_for(kind, name, holds, **options))

    def watch(self, kind: Literal["adapters", "deployments"], **options: Any) -> Iterator[tuple[str, Any]]:
        """LoRAClient.watch; leave the loop, or close the generator, to stop."""
        return self._iterate(self.asynchronous.watch(kind, **options))

    def adapter_logs(self, name: str, **options: Any) -> Iterator[LogLine]:
        """LoRAClient.adapter_logs."""
        return self._iterate(self.asynchronous.adapter_logs(name, **options))

    def report(self, name: str, **options: Any) -> bytes:
        """LoRAClient.report."""
        return self._run(self.asynchronous.report(name, **options))

"""LoRAClient: what a program does with LoRA adapters on a cluster, asynchronously.

    async with LoRAClient.connect() as client:
        workflow = await client.run_workflow(request)

    ResourceClient ─► RequestClient ─► WorkflowClient ─┐
          └─────────► LogClient ───────────────────────┴─► LoRAClient

Reads and writes only LoRAAdapters and LoRADeployments (and reads their pods' logs and stored revisions): everything else is
the operator's. One client may be shared by many tasks of one event loop. For plain calls there is lora_client.sync.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lora_client.api import Api
from lora_client.log_client import LogClient
from lora_client.names import FIELD_MANAGER
from lora_client.retrying import Backoff
from lora_client.workflow_client import WorkflowClient

__all__ = ["LoRAClient"]


class LoRAClient(WorkflowClient, LogClient):
    """A cluster, seen through its LoRA resources. Every call takes `namespace`; None means the context's."""

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

"""What Jobs and serving pods write, and the validation report."""

import asyncio
from collections.abc import AsyncIterator, Callable

from lora_client.adapter import Adapter
from lora_client.errors import Invalid
from lora_client.logs import LogLine, job_lines, pod_lines
from lora_client.names import LABEL_DEPLOYMENT, POD
from lora_client.report import read_report
from lora_client.resource_client import ResourceClient

__all__ = ["LogClient"]

LOOK_AGAIN_SECONDS = 0.5
ADAPTER_STAGES = ("merge", "validate")


class LogClient(ResourceClient):
    """Reads pods' logs, and a claim through a short-lived pod."""

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
        say: Callable[[str], None] = lambda _: None,
    ) -> bytes:
        """The last validation's report, `json`, `html` or `rows`, read from the claim through a short-lived pod.

        The scores and gates are in `adapter.validation` already; this is the whole of it, item by item. `say` is told what is
        being waited for. Raises as read_report (report.py).
        """
        adapter = await self.get_adapter(name, namespace=namespace)
        return await read_report(self.api, adapter, format=format, image=image, say=say)


def _building(adapter: Adapter) -> bool:
    """A Job may still come."""
    return not adapter.stalled and adapter.phase not in {"Ready", "Rejected", "Failed", "Suspended"}

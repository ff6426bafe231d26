"""Many adapters on a real cluster: suspended, so that nothing is built, in a namespace that goes away with them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from lora_client.api import Api
from lora_client.names import ADAPTER, Kind

NAMESPACE = Kind("", "v1", "namespaces", "Namespace")
NAME = "bench-client"
AT_ONCE = 20
SOURCE = {"pvc": {"claimName": "models", "path": "x"}}


@contextmanager
def many_adapters(kubeconfig: Path, *, adapters: int, folder: Path) -> Iterator[Path]:
    """A kubeconfig whose context means that namespace."""
    try:
        asyncio.run(_create(kubeconfig, adapters))
        raw = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        for context in raw["contexts"]:
            context["context"]["namespace"] = NAME
        ours = folder / "kubeconfig"
        ours.write_text(yaml.safe_dump(raw), encoding="utf-8")
        yield ours
    finally:
        asyncio.run(_remove(kubeconfig))


async def _create(kubeconfig: Path, adapters: int) -> None:
    async with await Api.connect(kubeconfig=str(kubeconfig)) as api:
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME, "namespace": None}}
        await api.create(NAMESPACE, manifest)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            spec = {
                "base": {"source": SOURCE}, "adapters": [{"name": "main", "source": SOURCE}], "artifact": {"store": SOURCE},
                "suspend": True,
            }  # fmt: skip
            meta = {"name": f"finance-v{number:04}", "namespace": NAME}
            async with gate:
                await api.create(
                    ADAPTER, {"apiVersion": ADAPTER.api_version, "kind": ADAPTER.kind, "metadata": meta, "spec": spec}
                )

        await asyncio.gather(*(one(number) for number in range(adapters)))


async def _remove(kubeconfig: Path) -> None:
    async with await Api.connect(kubeconfig=str(kubeconfig)) as api:
        await api.delete(NAMESPACE, namespace="", name=NAME)

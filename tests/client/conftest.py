"""A fake cluster per test, and a client of it that waits for nobody."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lora_client.client import LoRAClient
from lora_client.retrying import Backoff
from tests.client.owning_api_server import OwningApiServer
from tests.fakes.api_server import FakeApiServer, serving, write_kubeconfig


@pytest.fixture
def pauses() -> list[float]:
    """How long the client would have waited between tries."""
    return []


@pytest.fixture
def quick(pauses: list[float]) -> Backoff:
    """The real backoff, without the waiting."""

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    return Backoff(sleep=sleep, random=lambda: 1.0)


@pytest.fixture
async def api() -> FakeApiServer:
    """An empty cluster with the CRDs."""
    return OwningApiServer()


@pytest.fixture
async def server(api: FakeApiServer) -> AsyncIterator[str]:
    """Its URL."""
    async with serving(api) as url:
        yield url


@pytest.fixture
def kubeconfig(server: str, tmp_path: Path) -> Path:
    """A kubeconfig of it."""
    return write_kubeconfig(tmp_path / "config", server=server)


@pytest.fixture
async def client(kubeconfig: Path, quick: Backoff) -> AsyncIterator[LoRAClient]:
    """Connected to it, namespace finance."""
    async with LoRAClient.connect(kubeconfig=str(kubeconfig), backoff=quick) as client:
        yield client

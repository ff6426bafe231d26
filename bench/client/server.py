"""An API server with many adapters, in a process of its own: what a command costs, without what a cluster's network adds."""

import argparse
import asyncio
import sys

from lora_client.names import ADAPTER, LORA_DEPLOYMENT
from tests.client.loractl.conftest import ready_adapter, stable_deployment
from tests.fakes.api_server import FakeApiServer, serving


async def serve(adapters: int) -> None:
    """Prints its URL once everything is stored; ends with its standard input."""
    api = FakeApiServer()
    for number in range(adapters):
        api.put(ADAPTER, ready_adapter(f"finance-v{number:04}"))
    api.put(LORA_DEPLOYMENT, stable_deployment(ref="finance-v0000"))
    async with serving(api) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapters", type=int, required=True)
    asyncio.run(serve(parser.parse_args().adapters))

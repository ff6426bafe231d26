"""What is said of a pod that was asked and did not answer as it should."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lora_operator.core.plan import ProbePod
from lora_operator.reconcile.verifier import PodVerdict, Verifier
from lora_operator.runtime.queue import Key

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _silent(_: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    return web.Response()


async def _broken(_: web.Request) -> web.Response:
    return web.Response(status=500, text="out of memory")


async def _empty(_: web.Request) -> web.Response:
    return web.json_response({"choices": [{"message": {"content": " "}}]})


async def asked(answer: Answer) -> PodVerdict | None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    done = asyncio.Event()
    verifier = Verifier(wake=lambda _: done.set())
    async with TestServer(app) as server:
        address = f"http://{server.host}:{server.port}"
        probe = ProbePod(pod="p", uid="u", address=address, model="m", probes=(), timeout_seconds=1, retries=1)
        verifier.start(probe, key=Key("loradeployments", "finance", "fin"))
        await done.wait()
    return verifier.verdict("u")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(_silent, "no answer within 1 s, asked 1 times; give the pod more processor", id="silence"),
        pytest.param(_broken, "ValueError: HTTP 500: out of memory", id="an error of the server"),
        pytest.param(_empty, "the completion is empty", id="an empty answer"),
    ],
)
async def test_a_pod_that_fails_the_question(answer: Answer, words: str) -> None:
    verdict = await asked(answer)
    assert verdict is not None
    assert verdict.passed is False
    assert verdict.detail.startswith(words)

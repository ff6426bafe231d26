"""How a controller is asked on a fence, over real HTTP, and what its answers mean."""

import asyncio

import pytest
from aiohttp import web

from lora_operator.core.build.fence import FENCE_HEADER, Fence
from lora_operator.routing.controller import Controllers, Patient, Reply, ask_over_http, what_is_missing

IN_A_ROUTE = Fence(host="fin.example.com", path="/health", mark="0123")
OF_AN_INGRESS = Fence(host="0123.fin.shop.invalid", path="/fence")


async def said(fence: Fence, answer: Reply | str) -> str:
    async def ask(url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
        return answer

    reason, message = await what_is_missing(
        ask, "http://x", fence=fence, of="GatewayClass traefik", written="HTTPRoute"
    )
    return f"{reason}: {message}" if message else ""


@pytest.mark.parametrize(
    ("fence", "answer", "missing"),
    [
        pytest.param(IN_A_ROUTE, Reply(200, mark="0123"), "", id="its own mark comes back"),
        pytest.param(IN_A_ROUTE, Reply(401, mark="0123"), "", id="a runtime that wants a password answers too"),
        pytest.param(IN_A_ROUTE, Reply(200), "(HTTP 200)", id="another route answers"),
        pytest.param(IN_A_ROUTE, Reply(200, mark="4567"), "(HTTP 200)", id="the fence of another distribution answers"),
        pytest.param(IN_A_ROUTE, Reply(404), "(HTTP 404)", id="no route answers"),
        pytest.param(IN_A_ROUTE, Reply(503, mark="0123"), "(HTTP 503)", id="no ready pod is known"),
        pytest.param(OF_AN_INGRESS, Reply(200), "", id="an Ingress' host is proof enough"),
        pytest.param(OF_AN_INGRESS, Reply(308), "", id="a redirect to https is an answer"),
        pytest.param(OF_AN_INGRESS, Reply(404), "(HTTP 404)", id="its host is not known"),
        pytest.param(OF_AN_INGRESS, Reply(502), "(HTTP 502)", id="its pod is not reached"),
        pytest.param(
            IN_A_ROUTE, "TimeoutError: ", "RouteNotAccepted: the controller of GatewayClass", id="nobody answers"
        ),
    ],
)
async def test_what_an_answer_means(fence: Fence, answer: Reply | str, missing: str) -> None:
    found = await said(fence, answer)
    assert missing in found
    assert bool(found) is bool(missing)


async def test_host_path_and_mark_travel_and_the_mark_comes_back() -> None:
    seen: list[tuple[str, str, str]] = []

    async def health(request: web.Request) -> web.Response:
        mark = request.headers.get(FENCE_HEADER, "")
        seen.append((request.host, request.path, mark))
        return web.Response(headers={FENCE_HEADER: mark} if mark else {})

    app = web.Application()
    app.router.add_get("/health", health)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        assert await ask_over_http(url, host="fin.example.com", path="/health", mark="0123") == Reply(200, mark="0123")
        assert await ask_over_http(url, host="", path="/health") == Reply(200)
        assert await ask_over_http(url, host="", path="/fence") == Reply(404)
    finally:
        await runner.cleanup()
    assert seen == [("fin.example.com", "/health", "0123"), (url.removeprefix("http://"), "/health", "")]
    assert await ask_over_http(url, host="", path="/health") == "Connection refused"


def test_the_settings_name_controllers_by_class() -> None:
    known = Controllers.of(
        [
            {"gatewayClass": "traefik", "kind": "traefik", "url": "http://a/"},
            {"ingressClass": "nginx", "kind": "ingress-nginx", "url": "http://b"},
            {"gatewayClass": "silent", "kind": "traefik", "metricsUrl": "http://c/metrics"},
        ],
        ask=ask_over_http,
    )
    assert (known.gateway, known.ingress) == ({"traefik": "http://a"}, {"nginx": "http://b"})


async def test_a_controller_that_keeps_us_waiting_is_left_alone_for_a_while() -> None:
    asked: list[str] = []
    answers: dict[str, Reply | str] = {
        "http://black-hole": "no answer within 3 s",
        "http://closed": "Connection refused",
    }

    async def ask(url: str, *, host: str, path: str, mark: str = "") -> Reply | str:
        asked.append(url)
        await asyncio.sleep(0.2 if url == "http://black-hole" else 0)
        return answers[url]

    patient = Patient(ask, slow_seconds=0.1, seconds=0.5)
    for _ in range(5):
        assert await patient("http://black-hole", host="h", path="/") == "no answer within 3 s"
        assert await patient("http://closed", host="h", path="/") == "Connection refused"
    assert (asked.count("http://black-hole"), asked.count("http://closed")) == (1, 5)
    answers["http://black-hole"] = Reply(200)
    await asyncio.sleep(0.6)
    both = await asyncio.gather(*(patient("http://black-hole", host="h", path="/") for _ in range(2)))
    assert both == [Reply(200), "no answer within 3 s"], "one asks again, the others do not wait"
    assert await patient("http://black-hole", host="h", path="/") == Reply(200)

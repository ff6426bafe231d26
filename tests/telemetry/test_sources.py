"""Figures from pods and from Prometheus, over real HTTP: what they say, and every way in which they can say nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from lora_operator.api.analysis import Of, Variant
from lora_operator.core.plan import Collect, Query, Target
from lora_operator.telemetry.base import Figures
from lora_operator.telemetry.page import LARGEST
from lora_operator.telemetry.prometheus import PrometheusSource
from lora_operator.telemetry.scrape import ScrapeSource

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = """\
# HELP http_requests_total Total number of requests by method, status and handler.
# TYPE http_requests_total counter
http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 41.0
http_requests_total{handler="/v1/chat/completions",method="POST",status="5xx"} 2.0
http_requests_total{handler="/health",method="GET",status="2xx"} 999.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="fin"} 3.0
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{le="0.3",model_name="fin"} 30.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="fin"} 43.0
vllm:e2e_request_latency_seconds_count{model_name="fin"} 43.0
vllm:e2e_request_latency_seconds_sum{model_name="fin"} 12.5
"""


@asynccontextmanager
async def serving(handler: Handler, *, path: str) -> AsyncIterator[str]:
    """A server with one route; yields its address."""
    app = web.Application()
    app.router.add_route("*", path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def collect(*targets: Target, prometheus: str = "", queries: tuple[Query, ...] = ()) -> Collect:
    return Collect(
        rollout="r",
        stage="0/5",
        interval_seconds=10,
        namespace="shop",
        targets=targets,
        prometheus=prometheus,
        queries=queries,
    )


def target(pod: str = "fin-a-1", *, address: str = "") -> Target:
    return Target(pod=pod, revision="a", created=CREATED, address=address, handlers=("/v1/chat/completions",))


def scrape(handler: Handler, *, seconds: float = 5.0) -> Figures:
    async def run() -> Figures:
        async with serving(handler, path="/metrics") as address:
            return await ScrapeSource(seconds=seconds).read(collect(target(address=f"{address}/metrics")))

    return asyncio.run(run())


def text(body: str, *, status: int = 200) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status)

    return answer


async def hangs(_: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


def test_a_pods_page_becomes_its_counters() -> None:
    found = scrape(text(PAGE))
    reading = found.readings["fin-a-1"]
    assert (reading.revision, reading.created, found.problems) == ("a", CREATED, ())
    assert (reading.counters.requests, reading.counters.errors, reading.counters.in_flight) == (43, 2, 3)
    assert reading.counters.time(Of.DURATION).slower(0.3) == 13


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        pytest.param(text("", status=503), "HTTP 503", id="it is not ready"),
        pytest.param(text("<html>hello</html>"), "none of vLLM's request metrics", id="something else"),
        pytest.param(text("up 1\n"), "none of vLLM's request metrics", id="metrics of another kind"),
        pytest.param(text(""), "none of vLLM's request metrics", id="an empty page"),
        pytest.param(text("x" * (LARGEST + 1)), "a line without end", id="a line without end"),
        pytest.param(
            text("http_requests_total 1\n" * (LARGEST // 20)), f"more than {LARGEST} bytes", id="a page without end"
        ),
        pytest.param(hangs, "does not answer in time", id="it hangs"),
    ],
)
def test_a_pod_that_says_nothing_is_a_problem_in_words_and_no_figure(handler: Handler, says: str) -> None:
    found = scrape(handler, seconds=0.3 if handler is hangs else 5.0)
    assert found.readings == {}
    assert len(found.problems) == 1
    assert "pod fin-a-1" in found.problems[0]
    assert says in found.problems[0]


def test_a_pod_that_hangs_holds_up_no_other() -> None:
    async def run() -> Figures:
        async with serving(hangs, path="/metrics") as slow, serving(text(PAGE), path="/metrics") as quick:
            source = ScrapeSource(seconds=0.5)
            targets = (
                target("slow", address=f"{slow}/metrics"),
                target("quick", address=f"{quick}/metrics"),
                target("closed", address="http://127.0.0.1:9/metrics"),
                target("none"),
            )
            return await source.read(collect(*targets))

    found = asyncio.run(run())
    assert list(found.readings) == ["quick"]
    assert [problem.split(":")[0] for problem in found.problems] == ["pod slow", "pod closed", "pod none"]
    assert "metricsPath" in found.problems[2]


def series(name: str, value: str, **labels: str) -> dict[str, Any]:
    return {"metric": {"__name__": name, "namespace": "shop", **labels}, "value": [1767225600, value]}


COUNTED = [
    series("http_requests_total", "41", pod="fin-a-1", handler="/v1/chat/completions", status="2xx"),
    series("http_requests_total", "2", pod="fin-a-1", handler="/v1/chat/completions", status="5xx"),
    series("vllm:e2e_request_latency_seconds_bucket", "43", pod="fin-a-1", le="+Inf"),
]
SALES = (Query("sales", Variant.STABLE, 'sales{s="a"}'), Query("sales", Variant.CANDIDATE, 'sales{s="b"}'))


def prometheus(results: Callable[[str], Any], *, seconds: float = 5.0, queries: tuple[Query, ...] = ()) -> Figures:
    """`results`: what a query answers, as data.result; an exception's text is the server's refusal."""

    async def answer(request: web.Request) -> web.Response:
        query = str((await request.post())["query"])
        try:
            content = {"status": "success", "data": {"resultType": "vector", "result": results(query)}}
        except ValueError as error:
            return web.json_response({"status": "error", "errorType": "bad_data", "error": str(error)}, status=400)
        return web.json_response(content)

    async def run() -> Figures:
        async with serving(answer, path="/api/v1/query") as address:
            return await PrometheusSource(seconds=seconds).read(collect(target(), prometheus=address, queries=queries))

    return asyncio.run(run())


def test_prometheus_gives_the_same_counters_and_is_asked_for_these_pods_alone() -> None:
    asked: list[str] = []

    def results(query: str) -> Any:
        asked.append(query)
        return COUNTED

    reading = prometheus(results).readings["fin-a-1"]
    assert (reading.counters.requests, reading.counters.errors) == (43, 2)
    assert 'namespace="shop"' in asked[0]
    assert r'pod=~"fin\\-a\\-1"' in asked[0]


def test_queries_are_answered_for_both_variants() -> None:
    def results(query: str) -> Any:
        values = {'sales{s="a"}': [series("sales", "3.5")], 'sales{s="b"}': [1767225600, "4"]}
        return values.get(query, COUNTED)

    assert prometheus(results, queries=SALES).values == {"sales": {Variant.STABLE: 3.5, Variant.CANDIDATE: 4.0}}


@pytest.mark.parametrize(
    ("result", "says"),
    [
        pytest.param([], "answers nothing", id="T16: an empty answer"),
        pytest.param([series("sales", "NaN")], "answers nan", id="T16: not a number"),
        pytest.param([series("sales", "+Inf")], "answers inf", id="infinite"),
        pytest.param(
            [series("sales", "1"), series("sales", "2")], "answers 2 series, expected one", id="several series"
        ),
        pytest.param([{"metric": {}}], "answers no number", id="a shape that is not Prometheus'"),
        pytest.param(None, "refuses the query: HTTP 400 parse error", id="a query that cannot be read"),
    ],
)
def test_an_answer_that_is_no_number_is_a_problem_and_no_figure(result: Any, says: str) -> None:
    def results(query: str) -> Any:
        if "sales" not in query:
            return COUNTED
        if result is None:
            raise ValueError("parse error")
        return result

    found = prometheus(results, queries=SALES[:1])
    assert found.values == {}
    assert "fin-a-1" in found.readings
    assert len(found.problems) == 1
    assert found.problems[0].startswith("sales of stable: ")
    assert says in found.problems[0]


def test_pods_that_prometheus_does_not_know_are_named() -> None:
    found = prometheus(lambda _: [])
    assert (found.readings, len(found.problems)) == ({}, 1)
    assert "no request metrics of pod fin-a-1" in found.problems[0]


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        pytest.param(text("<html>"), "no JSON", id="something else answers"),
        pytest.param(text(json.dumps([1])), "refuses the query", id="JSON of another kind"),
        pytest.param(text(json.dumps({"status": "success", "data": {"result": [1]}})), "no series", id="no series"),
        pytest.param(hangs, "does not answer in time", id="it hangs"),
    ],
)
def test_a_server_that_says_nothing_is_a_problem(handler: Handler, says: str) -> None:
    async def run() -> Figures:
        async with serving(handler, path="/api/v1/query") as address:
            return await PrometheusSource(seconds=0.5).read(collect(target(), prometheus=address))

    found = asyncio.run(run())
    assert found.readings == {}
    assert says in found.problems[0]


def test_a_server_that_is_not_there_is_a_problem() -> None:
    asked = collect(target(), prometheus="http://127.0.0.1:9", queries=SALES)
    found = asyncio.run(PrometheusSource().read(asked))
    assert (found.readings, found.values) == ({}, {})
    assert len(found.problems) == 3

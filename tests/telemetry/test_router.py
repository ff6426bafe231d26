"""Figures of a router beside those of the pods, over real HTTP: who says what, and that a part that is missing is no figure."""

import asyncio
from contextlib import AsyncExitStack

from lora_operator.api.analysis import Of
from lora_operator.core.analysis.router_series import Backend
from lora_operator.core.plan import Collect, RouterTarget, Target
from lora_operator.telemetry.base import Figures
from lora_operator.telemetry.page import LARGEST
from lora_operator.telemetry.scrape import ScrapeSource
from tests.telemetry.test_sources import CREATED, PAGE, Handler, collect, serving, text

BACKENDS = {revision: Backend(namespace="shop", route="fin", service=f"fin-{revision}") for revision in ("a", "b")}
SERVICE = "httproute-shop-fin-gw-infra-public-ep-web-2-0465-svc-shop-fin-{}-0@kubernetesgateway"


def counted(**requests: dict[str, int]) -> Handler:
    """A page of Traefik: requests by revision and code."""
    lines = ["# TYPE traefik_service_requests_total counter"]
    buckets = ["# TYPE traefik_service_request_duration_seconds histogram"]
    for revision, codes in requests.items():
        for code, value in codes.items():
            labels = f'code="{code}",method="POST",protocol="http",service="{SERVICE.format(revision)}"'
            lines.append(f"traefik_service_requests_total{{{labels}}} {value}")
            buckets += [
                f'traefik_service_request_duration_seconds_bucket{{{labels},le="{edge}"}} {value}'
                for edge in ("1.2", "+Inf")
            ]
            buckets.append(f"traefik_service_request_duration_seconds_count{{{labels}}} {value}")
            buckets.append(f"traefik_service_request_duration_seconds_sum{{{labels}}} {value}")
    return text("\n".join([*lines, *buckets, ""]))


def read(*routers: Handler, pod: Handler | None = None, problem: str = "") -> Figures:
    async def run() -> Figures:
        async with AsyncExitStack() as stack:
            addresses = [await stack.enter_async_context(serving(router, path="/metrics")) for router in routers]
            pods = await stack.enter_async_context(serving(pod, path="/metrics")) if pod is not None else ""
            target = Target(
                pod="fin-a-1",
                revision="a",
                created=CREATED,
                address=f"{pods}/metrics" if pods else "",
                handlers=("/v1/chat/completions",),
            )
            asked: Collect = collect(target)
            where = RouterTarget(
                problem=problem, addresses=tuple(f"{one}/metrics" for one in addresses), backends=BACKENDS
            )
            return await ScrapeSource(seconds=1).read(Collect(**{**vars(asked), "router": where}))

    return asyncio.run(run())


def sums(found: Figures, revision: str) -> tuple[float, float, float]:
    """Requests, errors and requests in flight of all readings of a version."""
    parts = [reading.counters for reading in found.readings.values() if reading.revision == revision]
    return sum(p.requests for p in parts), sum(p.errors for p in parts), sum(p.in_flight for p in parts)


def test_the_router_counts_requests_and_the_pods_measure_times() -> None:
    found = read(counted(a={"200": 90, "502": 10}, b={"200": 5}), pod=text(PAGE))
    assert found.problems == ()
    assert (sums(found, "a"), sums(found, "b")) == ((100, 10, 3), (5, 0, 0))
    timed = [name for name, reading in found.readings.items() if reading.counters.time(Of.DURATION).buckets]
    assert timed == ["fin-a-1"], "edges of the router's buckets must not take those of the pods away"


def test_a_runtime_without_metrics_is_measured_by_the_router_alone() -> None:
    found = read(counted(a={"200": 90}, b={"500": 5}))
    assert found.problems == ()
    assert (sums(found, "a"), sums(found, "b")) == ((90, 0, 0), (5, 5, 0))
    assert all(reading.counters.time(Of.DURATION).total for reading in found.readings.values())


def test_a_version_that_nobody_asked_yet_counts_zero_so_that_its_first_request_is_seen() -> None:
    found = read(counted(a={"200": 90}), pod=text(PAGE))
    assert sums(found, "b") == (0, 0, 0)
    assert {reading.revision for reading in found.readings.values()} == {"a", "b"}


def test_every_process_of_the_router_counts_for_itself() -> None:
    found = read(counted(a={"200": 40}), counted(a={"200": 2}, b={"503": 1}))
    assert (sums(found, "a"), sums(found, "b")) == ((42, 0, 0), (1, 1, 0))
    assert len(found.readings) == 4


def test_without_one_of_its_processes_there_are_no_figures_at_all() -> None:
    """Fewer requests and no errors would be what a good version looks like."""
    found = read(counted(a={"200": 40}), text("", status=503), pod=text(PAGE))
    assert found.readings == {}
    assert len(found.problems) == 1
    assert found.problems[0].startswith("router: http://127.0.0.1")
    assert "HTTP 503" in found.problems[0]


def test_a_router_that_has_neither_version_is_a_problem_in_words() -> None:
    found = read(counted(other={"200": 1}), pod=text(PAGE))
    assert found.readings == {}
    assert "has no requests of either version yet" in found.problems[0]


def test_a_router_that_is_not_known_is_a_problem_in_words() -> None:
    found = read(pod=text(PAGE), problem="Gateway infra/public does not exist")
    assert (found.readings, found.problems) == ({}, ("router: Gateway infra/public does not exist",))


def test_pods_that_say_nothing_for_once_do_not_make_the_routers_times_count() -> None:
    """Kinds of times that come and go would look like restarts."""
    found = read(counted(a={"200": 90}, b={"200": 5}), pod=text("", status=503))
    assert len(found.problems) == 1
    assert not any(reading.counters.times for reading in found.readings.values())


def test_a_page_with_the_routes_of_a_whole_cluster_is_read_in_parts() -> None:
    other = 'traefik_service_requests_total{code="200",method="POST",service="httproute-other"} 1\n'
    mine = f'traefik_service_requests_total{{code="200",method="POST",service="{SERVICE.format("a")}"}} 3\n'
    found = read(text(other * (LARGEST // len(other) + 1) + mine))
    assert (found.problems, sums(found, "a")) == ((), (3, 0, 0))

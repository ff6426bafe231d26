"""What a pod has counted, and what grew: restarts, pods that come and go, histograms."""

import math

import pytest

from lora_operator.api.analysis import Of
from lora_operator.core.analysis.counters import ZERO, Counters, Histogram, grown, summed
from lora_operator.core.analysis.series import Series
from lora_operator.core.analysis.vllm import counters_of

PATHS = ("/v1/chat/completions", "/v1/completions")


def counters(
    requests: float, errors: float = 0, in_flight: float = 0, buckets: dict[float, float] | None = None
) -> Counters:
    times = {} if buckets is None else {Of.DURATION: Histogram(buckets)}
    return Counters(requests=requests, errors=errors, in_flight=in_flight, times=times)


@pytest.mark.parametrize(
    ("before", "now", "wanted"),
    [
        pytest.param(counters(10, 1), counters(15, 3), counters(5, 2), id="both grew"),
        pytest.param(counters(10, 1), counters(10, 1), counters(0, 0), id="nothing came"),
        pytest.param(counters(10, 1), counters(4, 0), counters(4, 0), id="a restart: all of it is new"),
        pytest.param(counters(10, 3), counters(12, 1), counters(12, 1), id="a restart that shows in the errors alone"),
        pytest.param(
            counters(5, 0, 4), counters(8, 0, 1), counters(3, 0, -3), id="requests in flight are a difference"
        ),
        pytest.param(
            counters(1, buckets={0.3: 5, math.inf: 6}),
            counters(2, buckets={0.3: 6, math.inf: 9}),
            counters(1, buckets={0.3: 1, math.inf: 3}),
            id="buckets",
        ),
        pytest.param(
            counters(1, buckets={0.3: 5, math.inf: 6}),
            counters(1, buckets={0.3: 2, math.inf: 2}),
            counters(1, buckets={0.3: 2, math.inf: 2}),
            id="a restart that shows in the times alone",
        ),
        pytest.param(ZERO, counters(3, buckets={math.inf: 3}), counters(3, buckets={math.inf: 3}), id="from nothing"),
    ],
)
def test_what_grew(before: Counters, now: Counters, wanted: Counters) -> None:
    assert grown(before, now) == wanted


def test_pods_are_added_up_with_the_edges_that_all_have() -> None:
    total = summed(
        [counters(1, 1, 1, {0.3: 1, 0.5: 2, math.inf: 2}), counters(2, 0, 0, {0.3: 1, math.inf: 4}), counters(4)]
    )
    assert (total.requests, total.errors, total.arrived) == (7, 1, 8)
    assert total.time(Of.DURATION).buckets == {0.3: 2, math.inf: 6}


@pytest.mark.parametrize(
    ("buckets", "q", "value"),
    [
        pytest.param({0.3: 0, 0.5: 100, math.inf: 100}, 0.5, 0.4, id="linear inside a bucket"),
        pytest.param({0.3: 100, math.inf: 100}, 0.95, 0.285, id="the first bucket begins at 0"),
        pytest.param({0.3: 50, math.inf: 100}, 0.95, 0.3, id="beyond the last edge: that edge"),
        pytest.param({0.3: 0, math.inf: 0}, 0.95, None, id="nothing was observed"),
        pytest.param({}, 0.95, None, id="no histogram"),
        pytest.param({0.3: 10, 0.5: 10, 0.8: 20, math.inf: 20}, 0.75, 0.65, id="an empty bucket between"),
    ],
)
def test_quantiles(buckets: dict[float, float], q: float, value: float | None) -> None:
    found = Histogram(buckets).quantile(q)
    assert found == (None if value is None else pytest.approx(value))


def series(name: str, value: float, **labels: str) -> Series:
    return Series(name=name, labels=labels, value=value)


def test_the_http_servers_view_counts_and_only_of_the_paths_that_serve() -> None:
    found = counters_of(
        [
            series("http_requests_total", 40, handler="/v1/chat/completions", status="2xx"),
            series("http_requests_total", 3, handler="/v1/chat/completions", status="5xx"),
            series("http_requests_total", 2, handler="/v1/completions", status="4xx"),
            series("http_requests_total", 900, handler="/health", status="2xx"),
            series("vllm:request_success_total", 7, finished_reason="stop"),
            series("vllm:num_requests_running", 2),
            series("vllm:num_requests_waiting", 1),
            series("vllm:e2e_request_latency_seconds_bucket", 4, le="0.3"),
            series("vllm:e2e_request_latency_seconds_bucket", 5, le="+Inf"),
            series("vllm:e2e_request_latency_seconds_sum", 9.5),
            series("python_gc_objects_collected_total", 99),
        ],
        handlers=PATHS,
    )
    assert found == Counters(45, 3, 3, {Of.DURATION: Histogram({0.3: 4, math.inf: 5})})


def test_without_it_the_engines_view_counts() -> None:
    found = counters_of(
        [
            series("vllm:request_success_total", 7, finished_reason="stop"),
            series("vllm:request_success_total", 2, finished_reason="error"),
            series("vllm:request_success_total", 1, finished_reason="abort"),
        ],
        handlers=PATHS,
    )
    assert found == Counters(10, 2)


def test_engines_of_one_pod_are_added_up_and_broken_lines_left_out() -> None:
    lines = [series("vllm:time_to_first_token_seconds_bucket", 2, le="+Inf", engine=e) for e in "01"]
    lines += [series("vllm:time_to_first_token_seconds_bucket", 1, le="0.1", engine=e) for e in "01"]
    lines += [series("vllm:time_to_first_token_seconds_bucket", 1, le="often")]
    lines += [series("vllm:num_requests_running", math.nan)]
    found = counters_of(lines, handlers=PATHS)
    assert found is not None
    assert found.time(Of.TTFT).buckets == {0.1: 2, math.inf: 4}
    assert found.in_flight == 0


ANSWERED = [series("http_requests_total", 40, handler="/v1/chat/completions", status="2xx")]


def failed(value: float) -> Series:
    return series("http_requests_total", value, handler="/v1/chat/completions", status="5xx")


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="an empty page"),
        pytest.param([series("process_cpu_seconds_total", 3)], id="names of something else"),
        pytest.param([series("vllm:num_requests_running", 3)], id="gauges alone"),
        pytest.param([series("vllm:request_success_total", math.nan)], id="T16: not a number"),
        pytest.param([*ANSWERED, failed(math.nan)], id="T16: errors that are no number"),
        pytest.param([*ANSWERED, failed(math.inf)], id="infinitely many errors"),
    ],
)
def test_a_page_that_counts_no_request_is_no_figure_at_all(lines: list[Series]) -> None:
    assert counters_of(lines, handlers=PATHS) is None

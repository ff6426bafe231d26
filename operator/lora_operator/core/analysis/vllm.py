"""vLLM's metric names, and what they say about requests.

    http_requests_total{handler,status}          requests and those that ended with 5xx, as the HTTP server saw them
    vllm:request_success_total{finished_reason}  the same from the engine, where the HTTP server does not count
    vllm:num_requests_running, _waiting          requests that are not answered yet
    vllm:e2e_request_latency_seconds             Duration
    vllm:time_to_first_token_seconds             TTFT

Other runtimes that expose these names are read in the same way. A 4xx is the client's own mistake and no error here.
"""

import math
from collections.abc import Iterable

from lora_operator.api.analysis import Of
from lora_operator.core.analysis.counters import Counters
from lora_operator.core.analysis.series import Series, histogram_of

__all__ = ["NAMES", "counters_of"]

_HTTP = "http_requests_total"
_FINISHED = "vllm:request_success_total"
_WAITING = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_TIMES = {Of.DURATION: "vllm:e2e_request_latency_seconds", Of.TTFT: "vllm:time_to_first_token_seconds"}
_BUCKETS = {f"{name}_bucket": of for of, name in _TIMES.items()}
NAMES = (_HTTP, _FINISHED, *_WAITING, *_BUCKETS)


def counters_of(series: Iterable[Series], *, handlers: Iterable[str]) -> Counters | None:
    """What one pod has counted; None when it says nothing that we know. `handlers`: the runtime's own paths that count.

    A counter that is no number spoils the page: without that line there would be fewer requests or errors than there were.
    """
    known = [line for line in series if line.name in NAMES]
    counting = [line for line in known if line.name not in _WAITING]
    if not counting or not all(math.isfinite(line.value) for line in counting):
        return None
    paths = frozenset(handlers)
    http = [line for line in known if line.name == _HTTP and line.labels.get("handler") in paths]
    engine = [line for line in known if line.name == _FINISHED]
    counted = http or engine
    return Counters(
        requests=sum(line.value for line in counted),
        errors=sum(line.value for line in counted if _failed(line)),
        in_flight=sum(line.value for line in known if line.name in _WAITING and math.isfinite(line.value)),
        times={
            of: histogram
            for name, of in _BUCKETS.items()
            if (histogram := histogram_of(line for line in known if line.name == name)).buckets
        },
    )


def _failed(line: Series) -> bool:
    if line.name == _HTTP:
        return line.labels.get("status", "").startswith("5")
    return line.labels.get("finished_reason") == "error"

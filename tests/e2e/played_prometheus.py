"""A Prometheus server that the test plays, so that it answers well or badly as the test says.

It listens where only this machine and its cluster get to; the operator's pod asks it as any other.

    operator ── POST /api/v1/query ──► test
        raw counters of pods named in the query · a query of the user: one number
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from devcluster.cluster import Cluster
from tests.e2e.simulated import ROUTES

__all__ = ["BAD", "PlayedPrometheus", "well"]

Json = dict[str, Any]
Answer = tuple[int, str]  # HTTP status and body
PODS = re.compile(r'pod=~"(?P<pods>[^"]+)"')  # of the query for raw counters; others are the user's
COUNTER = {
    "__name__": "http_requests_total",
    "handler": ROUTES["/v1/chat/completions"],
    "method": "POST",
    "status": "2xx",
}
MORE = 20  # requests that each pod has answered from one look to the next


def vector(*series: Json) -> Answer:
    return 200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": list(series)}})


def one(value: str, labels: Mapping[str, str] | None = None) -> Json:
    return {"metric": dict(labels or {}), "value": [1767225600, value]}


def all_are(value: str) -> Callable[[str, int], Answer]:
    """Every series is there, and this is its value."""
    return lambda promql, _: vector(*(one(value, labels) for labels in _asked(promql)))


def well(promql: str, look: int) -> Answer:
    """Every pod has answered so many requests more than at the look before; a user's query is 1."""
    return vector(*(one(str(MORE * look) if labels else "1", labels) for labels in _asked(promql)))


BAD: dict[str, tuple[Callable[[str, int], Answer], str]] = {  # and what the operator says of it
    "nothing": (lambda *_: vector(), "has no request metrics of pod"),
    "NaN": (all_are("NaN"), "or not as numbers"),
    "+Inf": (all_are("+Inf"), "or not as numbers"),
    "text": (lambda *_: (200, "<html>"), "does not answer as Prometheus does (no JSON)"),
    "HTTP 500": (lambda *_: (500, '{"status": "error", "error": "out of memory"}'), "HTTP 500 out of memory"),
    "the user's query is empty": (lambda promql, look: _but(promql, look, vector()), "the query answers nothing"),
    "the user's query is NaN": (lambda promql, look: _but(promql, look, vector(one("NaN"))), "the query answers nan"),
}


def _but(promql: str, look: int, answer: Answer) -> Answer:
    """The counters are well, the user's query is not."""
    return well(promql, look) if PODS.search(promql) else answer


def _asked(promql: str) -> list[Mapping[str, str]]:
    """Labels of the series that a query is about: a counter of each pod, or a number without any."""
    found = PODS.search(promql)
    if found is None:
        return [{}]
    return [{**COUNTER, "pod": pod.replace("\\", "")} for pod in found["pods"].split("|")]


class PlayedPrometheus:
    """`with PlayedPrometheus(cluster) as prometheus:` answers until the block ends, as `answer` says."""

    def __init__(self, cluster: Cluster) -> None:
        played = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                played._reply(self)

            def log_message(self, *_: object) -> None:
                """Not on the test's output."""

        self._server = ThreadingHTTPServer((cluster.instance.host_side, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.answer: Callable[[str, int], Answer] = well
        self.looks = 0  # queries for raw counters so far

    @property
    def address(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> "PlayedPrometheus":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _reply(self, request: BaseHTTPRequestHandler) -> None:
        form = parse_qs(request.rfile.read(int(request.headers["Content-Length"])).decode())
        promql = form["query"][0]
        self.looks += bool(PODS.search(promql))
        status, body = self.answer(promql, self.looks)
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body.encode())

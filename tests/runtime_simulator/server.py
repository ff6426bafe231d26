"""Answers like a model server, says which model directory it stands for, and can be slow, wrong or unwell on purpose.

Routes: /health, /metrics (vLLM's names), /v1/models, /v1/chat/completions and /v1/completions (streaming too). A request that
names another model gets 400. SIGTERM: requests and streams that run are finished, then the process ends.
"""

import argparse
import hashlib
import itertools
import json
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

try:
    from figures import Figures  # beside this file in the image
except ModuleNotFoundError:
    from tests.runtime_simulator.figures import Figures

WORDS = 8  # of a streamed answer
IDLE_SECONDS = 120  # longer than a router keeps a connection, so that the router is the one who closes it


class Simulator:
    """What all handlers share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.answer = options.answer or _fingerprint(Path(options.model))
        self.started = time.monotonic()
        self.idle = threading.Condition()
        self.running = 0
        self.figures = Figures()
        self._numbers = itertools.count(1)

    def healthy(self) -> bool:
        """Ready after its slow start, and until it falls ill."""
        age = time.monotonic() - self.started
        ill = self.options.unhealthy_after is not None and age >= self.options.unhealthy_after
        return age >= self.options.slow_start and not ill

    def crash_in_time(self) -> None:
        """Ends the process like a fault would, when its time has come."""
        if self.options.crash_after is not None:
            timer = threading.Timer(self.options.crash_after, lambda: os._exit(1))
            timer.daemon = True
            timer.start()

    def hits(self, share: float) -> bool:
        """Every n-th request for a share of 1/n."""
        return bool(share) and next(self._numbers) % max(1, round(1 / share)) == 0

    def finish(self) -> None:
        """Waits until nothing runs any more, and ends the process."""
        with self.idle:
            self.idle.wait_for(lambda: self.running == 0)
        os._exit(0)


def _fingerprint(model: Path) -> str:
    """Short hash of the weights: the answer of a server that was given no other."""
    digest = hashlib.sha256()
    for path in sorted(model.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def handler_of(simulator: Simulator) -> type[BaseHTTPRequestHandler]:
    """The request handler of one simulator."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_SECONDS

        def do_GET(self) -> None:
            if self.path == "/health":
                self._send(200 if simulator.healthy() else 503, {})
            elif self.path == "/metrics":
                self._send_text(simulator.figures.text())
            elif self.path == "/v1/models":
                self._send(200, {"object": "list", "data": [{"id": simulator.options.name, "object": "model"}]})
            else:
                self._send(404, {"error": f"no route {self.path}"})

        def do_POST(self) -> None:
            with simulator.idle:
                simulator.running += 1
            simulator.figures.begun()
            try:
                self._complete(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}"))
            finally:
                simulator.figures.ended()
                with simulator.idle:
                    simulator.running -= 1
                    simulator.idle.notify_all()

        def _complete(self, body: dict[str, Any]) -> None:
            if self.path not in ("/v1/chat/completions", "/v1/completions"):
                self._send(404, {"error": f"no route {self.path}"})
            elif body.get("model") != simulator.options.name:
                self._send(400, {"error": f"no model {body.get('model')!r}"})
            elif simulator.hits(simulator.options.breaks):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif simulator.hits(simulator.options.errors):
                self._send(500, {"error": "as asked for by --errors"})
            elif body.get("stream"):
                self._stream()
            else:
                began = time.monotonic()
                time.sleep(simulator.options.latency)
                simulator.figures.finished(first=simulator.options.latency, whole=time.monotonic() - began)
                self._send(200, self._reply(simulator.answer))

        def _reply(self, text: str) -> dict[str, Any]:
            said = {"message": {"role": "assistant", "content": text}} if "chat" in self.path else {"text": text}
            return {"object": "completion", "model": simulator.options.name, "choices": [{"index": 0, **said}]}

        def _stream(self) -> None:
            # Like any model: an answer that begins before a proxy has finished with the request is cut off by some of them.
            time.sleep(simulator.options.latency)
            simulator.figures.answered(handler=self.path, method="POST", status=200)
            simulator.figures.finished(first=simulator.options.latency, whole=simulator.options.latency)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(WORDS):
                delta = {"choices": [{"index": 0, "delta": {"content": f"{simulator.answer} "}}]}
                self._chunk(f"data: {json.dumps(delta)}\n\n")
                time.sleep(simulator.options.stream_seconds / WORDS)
            self._chunk("data: [DONE]\n\n")
            self._chunk("")

        def _chunk(self, text: str) -> None:
            self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
            self.wfile.flush()

        def _send(self, code: int, body: dict[str, Any]) -> None:
            simulator.figures.answered(handler=self.path, method=self.command, status=code)
            self._answer(code, json.dumps(body), kind="application/json")

        def _send_text(self, text: str) -> None:
            self._answer(200, text, kind="text/plain; version=0.0.4")

        def _answer(self, code: int, text: str, *, kind: str) -> None:
            content = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing: probes would fill the log."""

    return Handler


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="model directory")
    parser.add_argument("--name", required=True, help="the name it answers to")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--answer", default="", help="what it says; default: a hash of the weights")
    parser.add_argument("--latency", type=float, default=0.01, help="seconds of an answer")
    parser.add_argument("--stream-seconds", type=float, default=2.0, help="length of a stream")
    parser.add_argument("--errors", type=float, default=0.0, help="share of requests that get 500")
    parser.add_argument(
        "--breaks", type=float, default=0.0, help="share of requests whose connection breaks, uncounted"
    )
    parser.add_argument("--slow-start", type=float, default=0.0, help="seconds until it is healthy")
    parser.add_argument("--unhealthy-after", type=float, default=None, help="seconds until it is not any more")
    parser.add_argument("--crash-after", type=float, default=None, help="seconds until the process ends with a fault")
    return parser.parse_args(arguments)


class Server(ThreadingHTTPServer):
    """A thread for each connection, and room for a burst of them."""

    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serves until SIGTERM, then finishes what runs."""
    simulator = Simulator(parse())
    simulator.crash_in_time()
    server = Server(("", simulator.options.port), handler_of(simulator))
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=simulator.finish).start())
    server.serve_forever()


if __name__ == "__main__":
    main()

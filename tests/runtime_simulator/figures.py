"""What the simulator has counted, under vLLM's metric names, as Prometheus text."""

import threading
from collections import Counter

DURATION, FIRST_TOKEN = "vllm:e2e_request_latency_seconds", "vllm:time_to_first_token_seconds"
EDGES = {
    DURATION: (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    FIRST_TOKEN: (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
}


class Figures:
    """Counted by the handlers' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str]] = Counter()  # handler, method, class of status
        self._seconds: dict[str, list[float]] = {name: [] for name in EDGES}
        self._running = 0

    def begun(self) -> None:
        """A completion is asked for."""
        with self._lock:
            self._running += 1

    def ended(self) -> None:
        """It was answered, or not."""
        with self._lock:
            self._running -= 1

    def answered(self, *, handler: str, method: str, status: int) -> None:
        """An HTTP answer was begun."""
        with self._lock:
            self._requests[handler, method, f"{status // 100}xx"] += 1

    def finished(self, *, first: float, whole: float) -> None:
        """A completion ended well, after so many seconds."""
        with self._lock:
            self._seconds[FIRST_TOKEN].append(first)
            self._seconds[DURATION].append(whole)

    def text(self) -> str:
        """The page."""
        with self._lock:
            lines = ["# TYPE http_requests_total counter"]
            for (handler, method, status), count in sorted(self._requests.items()):
                lines.append(f'http_requests_total{{handler="{handler}",method="{method}",status="{status}"}} {count}')
            finished = len(self._seconds[DURATION])
            lines += ["# TYPE vllm:request_success counter"]
            lines += [f'vllm:request_success_total{{finished_reason="stop"}} {finished}']
            lines += ["# TYPE vllm:num_requests_running gauge", f"vllm:num_requests_running {self._running}"]
            lines += ["# TYPE vllm:num_requests_waiting gauge", "vllm:num_requests_waiting 0"]
            for name, edges in EDGES.items():
                lines += _histogram(name, edges, self._seconds[name])
        return "\n".join(lines) + "\n"


def _histogram(name: str, edges: tuple[float, ...], seconds: list[float]) -> list[str]:
    lines = [f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{{le="{edge}"}} {sum(one <= edge for one in seconds)}' for edge in edges]
    lines += [
        f'{name}_bucket{{le="+Inf"}} {len(seconds)}',
        f"{name}_sum {sum(seconds)}",
        f"{name}_count {len(seconds)}",
    ]
    return lines

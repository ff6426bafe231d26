"""The simulator itself: if it lied, the rollouts' end-to-end tests would too."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lora_operator.api.analysis import Of
from lora_operator.core.analysis.series import Series
from lora_operator.core.analysis.vllm import counters_of

SERVER = Path(__file__).parent / "server.py"


def start(model: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), "--model", str(model), "--name", "fin", "--port", str(port), *arguments]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}"
        time.sleep(0.05)
    process.kill()
    raise AssertionError("the simulator did not start")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


@pytest.fixture
def url(model: Path) -> Iterator[str]:
    process, address = start(model)
    yield address
    process.kill()
    process.wait()


def ask(url: str, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    message = {"model": "fin", "messages": [{"role": "user", "content": "?"}], **body}
    return httpx.post(f"{url}{path}", json=message, trust_env=False, timeout=30)


def test_it_answers_with_a_hash_of_its_weights(url: str) -> None:
    answer = ask(url).json()["choices"][0]["message"]["content"]
    assert (len(answer), ask(url, "/v1/completions").json()["choices"][0]["text"]) == (8, answer)
    assert httpx.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"] == "fin"


def test_another_model_and_another_route_are_refused(url: str) -> None:
    assert ask(url, model="other").status_code == 400
    assert ask(url, "/load_model").status_code == 404


def test_a_stream_ends_with_done(url: str) -> None:
    lines = [line for line in ask(url, stream=True).text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert "content" in json.loads(lines[0].removeprefix("data: "))["choices"][0]["delta"]


def test_it_fails_and_is_unwell_as_asked(model: Path) -> None:
    process, url = start(model, "--errors", "0.5", "--slow-start", "3600", "--answer", "v2")
    try:
        assert sorted(ask(url).status_code for _ in range(4)) == [200, 200, 500, 500]
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 503
    finally:
        process.kill()
        process.wait()


def test_a_stream_that_runs_is_finished_before_it_ends(model: Path) -> None:
    process, url = start(model, "--stream-seconds", "1")
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json={"model": "fin", "stream": True}, trust_env=False, timeout=30
    ) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        process.send_signal(signal.SIGTERM)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert process.wait(timeout=10) == 0


def test_it_counts_under_the_names_that_vllm_uses(model: Path) -> None:
    process, url = start(model, "--errors", "0.5", "--latency", "0.35")
    try:
        for _ in range(4):
            ask(url)
        httpx.get(f"{url}/health", trust_env=False)
        page = httpx.get(f"{url}/metrics", trust_env=False).text
    finally:
        process.kill()
        process.wait()
    series = [
        Series(name=sample.name, labels=sample.labels, value=sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]
    found = counters_of(series, handlers=("/v1/chat/completions",))
    assert found is not None
    assert (found.requests, found.errors, found.in_flight) == (4, 2, 0)
    assert (found.time(Of.DURATION).total, found.time(Of.DURATION).slower(0.3)) == (2, 2)
    assert found.time(Of.TTFT).total == 2


def test_it_crashes_when_told_to(model: Path) -> None:
    process, _ = start(model, "--crash-after", "0.2")
    assert process.wait(timeout=20) == 1

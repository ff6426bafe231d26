"""--watch: lines without a terminal, bars on one, and Ctrl-C that stops nothing."""

import io
import json
import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from lora_client.logs import Progress
from lora_client.names import ADAPTER, LORA_DEPLOYMENT, POD
from loractl.live import lines_of, picture_of
from loractl.output import Output
from tests.client.loractl.conftest import (
    Terminal,
    adapter,
    deployment,
    job_pod,
    ready_adapter,
    ready_condition,
    stable_deployment,
    version,
)
from tests.client.loractl.screen import PATIENCE, Open
from tests.client.loractl.whole_cluster import WholeCluster

Json = dict[str, Any]
MERGING = {
    "phase": "Merging",
    "conditions": ready_condition(reason="Merging", message="Job fin-v2-m-1-1"),
    "jobs": {"merge": {"name": "fin-v2-m-1-1", "attempt": 1}},
}


def progress_line(done: int) -> str:
    return json.dumps({"time": "t", "stage": "merge", "done": done, "total": 200, "unit": "tensors", "etaSeconds": 4})


def merging(cluster: WholeCluster, *, done: int = 100) -> None:
    """A merge that runs, with its log."""
    cluster.put(ADAPTER, adapter(**MERGING))
    cluster.put(POD, job_pod(phase="Running", containerStatuses=[{"name": "merge", "state": {"running": {}}}]))
    cluster.logs["fin-v2-m-1-1-x", "merge"] = ["a word for people", progress_line(done)]


def once_seen(cluster: WholeCluster, path: str, act: Callable[[], object], *, times: int = 1) -> threading.Thread:
    """Acts as soon as the client has asked for `path` so often: then it has drawn what was before."""

    def wait() -> None:
        deadline = time.monotonic() + PATIENCE
        while sum(path in request for request in list(cluster.requests)) < times and time.monotonic() < deadline:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_without_a_terminal_every_change_is_one_line(loractl: Terminal, cluster: WholeCluster) -> None:
    merging(cluster, done=200)
    actor = once_seen(
        cluster,
        "/loraadapters/fin-v2",
        lambda: cluster.set_status(ADAPTER, "fin-v2", ready_adapter()["status"]),
        times=4,
    )
    result = loractl("status", "fin-v2", "--watch")
    actor.join()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "LoRAAdapter fin-v2: Merging Job fin-v2-m-1-1"
    assert "  merge: done, 200 of 200 tensors" in lines
    assert lines[-1].startswith("LoRAAdapter fin-v2 is Ready")
    assert len(lines) == len(set(lines))


def test_a_timeout_ends_the_following_and_not_the_work(loractl: Terminal, cluster: WholeCluster) -> None:
    merging(cluster)
    result = loractl("status", "fin-v2", "--watch", "--timeout", "1")
    assert result.exit_code == 1
    assert "not over after 1 s, it goes on: LoRAAdapter fin-v2 is Merging" in result.stderr
    assert [request for request in cluster.requests if not request.startswith("GET")] == []


def test_following_ends_with_the_code_of_the_result(loractl: Terminal, cluster: WholeCluster) -> None:
    merging(cluster)
    refused = {
        "phase": "Failed",
        "conditions": ready_condition(reason="WrongBase", message="names another", stalled=True),
    }
    actor = once_seen(cluster, "/log?", lambda: cluster.set_status(ADAPTER, "fin-v2", refused))
    assert loractl("status", "fin-v2", "--watch").exit_code == 2
    actor.join()


def test_without_the_right_to_read_logs_it_is_followed_all_the_same(loractl: Terminal, cluster: WholeCluster) -> None:
    merging(cluster)
    cluster.refused.add("list pods")
    actor = once_seen(cluster, "/pods?", lambda: cluster.set_status(ADAPTER, "fin-v2", ready_adapter()["status"]))
    assert loractl("status", "fin-v2", "--watch").exit_code == 0
    actor.join()


def test_a_terminal_shows_a_bar_and_colour(screen_of: Open, cluster: WholeCluster) -> None:
    merging(cluster)
    screen = screen_of("status", "fin-v2", "--watch")
    text = screen.until("100 of 200 tensors, 4s left")
    assert " 50% " in text
    assert "━" in text
    assert "\x1b[33m" in screen.raw
    assert screen.raw.startswith("connecting …\r\x1b[K")
    cluster.set_status(ADAPTER, "fin-v2", ready_adapter()["status"])
    screen.until("LoRAAdapter fin-v2 is Ready")
    assert screen.end() == 0


def test_ctrl_c_leaves_the_cluster_working_and_tells_the_way_back(screen_of: Open, cluster: WholeCluster) -> None:
    merging(cluster)
    screen = screen_of("status", "fin-v2", "--watch", "-n", "finance")
    screen.until("Merging")
    screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 130
    assert "the work in the cluster goes on" in screen.text
    assert "loractl status --namespace finance fin-v2 --watch" in screen.text
    assert "Traceback" not in screen.text
    assert [request for request in cluster.requests if not request.startswith("GET")] == []


def test_a_started_workflow_that_is_left_can_be_found_again(screen_of: Open, cluster: WholeCluster) -> None:
    words = ("workflow", "fin-v2", "--base", "pvc://m/b", "--adapter", "pvc://m/a")
    screen = screen_of(*words)
    screen.until("LoRAAdapter fin-v2")
    screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 130
    identity = cluster.peek(ADAPTER, "fin-v2")["metadata"]["labels"]["loraops.dev/workflow-id"]
    assert f"loractl status --workflow-id {identity} --watch" in screen.text.replace("\n", "")


def rolling() -> Json:
    return deployment(
        phase="Stepping",
        conditions=ready_condition(reason="Stepping", message="a very long message " * 10),
        stable=version("61fd", ref="fin-v1", weight=95),
        candidate=version("8adf", ref="fin-v2", weight=5),
        step={"index": 0, "of": 3, "sub": "Analyse", "startedAt": "2026-01-01T12:00:00Z"},
    )


def drawn(deployed: Json, built: Json, stages: list[Progress]) -> list[str]:
    console = Console(width=80, force_terminal=False, record=True, file=io.StringIO())
    with console.capture() as capture:
        console.print(picture_of(deployed, built, stages, now=Output().now))
    return capture.get().splitlines()


def test_the_picture_of_a_rollout_fits_80_columns_and_shows_where_the_requests_go() -> None:
    lines = drawn(rolling(), ready_adapter(), [Progress("t", "merge", 2**30, 2**31, "B", 75)])
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "1.0 GiB of 2.0 GiB, 75s left" in text
    assert re.search(r"stable +━+╸? +95% fin-v1, 1 of 1 pods ready", text)
    assert re.search(r"candidate +━+╸? +5% fin-v2, 1 of 1 pods ready", text)
    assert "step 1 of 3, Analyse" in text


def test_while_versions_are_compared_the_picture_and_the_log_say_how_it_stands() -> None:
    raw = rolling()
    raw["status"]["analysis"] = {
        "verdict": "Degraded",
        "message": "errors: more than 2 % failed",
        "metrics": [
            {"name": "errors", "builtin": "errorRate", "verdict": "Degraded", "stable": 0.01, "candidate": 0.2}
        ],
    }
    lines = drawn(raw, ready_adapter(), [])
    assert "  analysis Degraded: errors: more than 2 % failed" in lines
    assert "    errors Degraded: stable 1 %, candidate 20 %" in lines
    assert "  analysis: Degraded (errors Degraded)" in lines_of(raw, None, [])


def test_lines_tell_weights_only_while_there_are_two_versions() -> None:
    assert "  requests: stable 61fd 95 %, candidate 8adf 5 %" in lines_of(rolling(), None, [])
    assert not [line for line in lines_of(stable_deployment(), None, []) if "requests" in line]


def test_a_stage_without_a_total_does_not_divide_by_zero() -> None:
    assert "100%" in "\n".join(drawn(stable_deployment(), ready_adapter(), [Progress("t", "verify", 0, 0, "B", None)]))


def test_watch_tells_every_change_until_it_is_stopped(screen_of: Open, cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, stable_deployment())
    screen = screen_of("watch")
    screen.until("lorad/fin-assistant  Stable")
    cluster.set_status(
        LORA_DEPLOYMENT,
        "fin-assistant",
        {"phase": "Preparing", "conditions": ready_condition(reason="Preparing", message="0 of 1")},
    )
    screen.until("lorad/fin-assistant  Preparing  0 of 1")
    cluster.remove(LORA_DEPLOYMENT, "fin-assistant")
    screen.until("lorad/fin-assistant  Deleted")
    screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 130

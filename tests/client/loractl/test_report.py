"""`loractl report`: the whole report from the claim, by a pod that is always gone afterwards."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from lora_client.names import ADAPTER, JOB, POD
from loractl.report_page import report_page
from tests.client.loractl.conftest import (
    Terminal,
    adapter,
    job,
    ready_adapter,
    ready_condition,
)
from tests.client.loractl.screen import Open
from tests.client.loractl.whole_cluster import WholeCluster

Json = dict[str, Any]
REPORT: Json = json.loads(Path(__file__).with_name("validation_report.json").read_text(encoding="utf-8"))
"""What lora-job wrote about a small model that forgot something; its lists of items are left out."""
PAGE = "<!doctype html><title>fin-v2</title>"
FOLDER = "artifacts/finance/fin-v2/5f2c5f2c5f2c5f2c/validation"


def validated(cluster: WholeCluster, **files: str) -> None:
    """An adapter with a report on its claim, the Job that wrote it, and a kubelet."""
    cluster.put(ADAPTER, ready_adapter())
    ran = job("fin-v2-v-1-1")
    ran["metadata"]["labels"] |= {"app.kubernetes.io/managed-by": "lora-operator"}
    ran["spec"] = {"template": {"spec": {"containers": [{"image": "registry/lora-job:1"}]}}}
    cluster.put(JOB, ran)
    there = {"json": json.dumps(REPORT), "html": PAGE, **files}

    def start(obj: Json) -> None:
        if obj["kind"] == "Pod" and not obj.get("status"):
            running = {"phase": "Running", "containerStatuses": [{"name": "files", "state": {"running": {}}}]}
            cluster.set_status(POD, obj["metadata"]["name"], running)

    def read(command: list[str], _: bytes) -> tuple[int, bytes]:
        path, _, form = command[-1].rpartition(".")
        found = there.get(form, "") if path == f"/claim/{FOLDER}/v-1" else ""
        return (0, found.encode()) if found else (1, b"No such file or directory")

    cluster.react, cluster.execute = start, read


def helpers(cluster: WholeCluster) -> list[str]:
    """Helper pods that are there."""
    return [name for plural, _, name in list(cluster.objects) if plural == "pods" and name.startswith("lora-files-")]


def test_it_is_fetched_and_shown_in_tables(loractl: Terminal, cluster: WholeCluster) -> None:
    validated(cluster)
    result = loractl("report", "fin-v2")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "score           0.307 (poor), 95 % between 0.265 and 0.367" in lines
    assert "deployable      no" in lines
    for words in (
        "safety       0.783  0.664 to 0.869  0.350  +0.433  +0.283 to +0.583  60",
        "regression  soft  FAIL    -0.0583   -0.05      Point",
        "quality-en            0.4     0.7    10",
    ):
        assert words in lines, result.stdout
    assert "regression      FAIL: domain is 0.058 worse than the base, 0.05 is allowed" in lines
    assert any(line.startswith("recommends      Plain text became 28% harder") for line in lines)
    assert "It" in lines[-1]
    assert helpers(cluster) == []


def test_who_waits_is_told_what_for(loractl: Terminal, cluster: WholeCluster) -> None:
    validated(cluster)
    said = loractl("report", "fin-v2").stderr.splitlines()
    assert [line.partition(" lora-files-")[0] for line in said] == ["pod", "pod"]
    assert [line.split()[-2:] for line in said] == [[said[0].split()[1], "starts"], ["the", "report"]]


def test_the_helper_pod_is_one_that_pod_security_restricted_takes(loractl: Terminal, cluster: WholeCluster) -> None:
    validated(cluster)
    made: list[Json] = []
    start = cluster.react
    cluster.react = lambda obj: (
        made.append(obj) if obj["kind"] == "Pod" and not obj.get("status") else None,
        start(obj),
    )[1]
    loractl("report", "fin-v2")
    (pod,) = made
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert container["volumeMounts"] == [{"name": "claim", "mountPath": "/claim", "readOnly": True}]
    assert spec["volumes"] == [{"name": "claim", "persistentVolumeClaim": {"claimName": "models"}}]
    assert container["image"] == "registry/lora-job:1"


def test_programs_get_the_whole_report(loractl: Terminal, cluster: WholeCluster) -> None:
    validated(cluster)
    assert json.loads(loractl("report", "fin-v2", "-o", "json").stdout) == REPORT


def test_the_summary_needs_no_pod(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(ADAPTER, ready_adapter())
    shown = loractl("report", "fin-v2", "--summary").stdout
    assert "score      PASS          observed 0.8712, threshold 0.8, soft" in shown
    assert json.loads(loractl("report", "fin-v2", "--summary", "-o", "json").stdout)["grade"] == "good"
    assert not any("pods" in request for request in cluster.requests)


def test_the_page_is_saved_under_a_name_of_its_own(
    loractl: Terminal, cluster: WholeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated(cluster)
    monkeypatch.chdir(tmp_path)
    assert loractl("report", "fin-v2", "--html").stdout == "fin-v2-v-1.html\n"
    assert (tmp_path / "fin-v2-v-1.html").read_text() == PAGE
    assert loractl("report", "fin-v2", "--html", "--to", "-").stdout == PAGE
    assert loractl("report", "fin-v2", "--html", "--to", "page.html").stdout == "page.html\n"
    assert (tmp_path / "page.html").read_text() == PAGE


@pytest.mark.parametrize(
    ("browser", "words"),
    [pytest.param(True, "", id="a browser"), pytest.param(False, "there is no browser here", id="no browser")],
)
def test_the_page_is_opened_where_there_is(
    loractl: Terminal, cluster: WholeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: bool, words: str
) -> None:
    validated(cluster)
    monkeypatch.chdir(tmp_path)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or browser)
    result = loractl("report", "fin-v2", "--open")
    assert opened == [(tmp_path / "fin-v2-v-1.html").as_uri()]
    assert (result.exit_code, words in result.stderr) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("--to", "x.html"), "add --html", id="a place without a page"),
        pytest.param(("--summary", "--html"), "--summary has no page", id="a page of the summary"),
        pytest.param(("--html", "--to", "/absent/x.html"), "--to /absent/x.html: No such file", id="no such folder"),
    ],
)
def test_wrong_usage_is_refused(
    loractl: Terminal, cluster: WholeCluster, arguments: tuple[str, ...], words: str
) -> None:
    validated(cluster)
    result = loractl("report", "fin-v2", *arguments)
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert helpers(cluster) == []


def gone(cluster: WholeCluster) -> None:
    validated(cluster, json="")


def cut_short(cluster: WholeCluster) -> None:
    validated(cluster, json="{")


def waiting(**status: Any) -> Callable[[WholeCluster], None]:
    """A kubelet that gets no further than this."""

    def world(cluster: WholeCluster) -> None:
        validated(cluster)

        def stuck(obj: Json) -> None:
            if obj["kind"] == "Pod" and not obj.get("status"):
                cluster.set_status(POD, obj["metadata"]["name"], {"phase": "Pending", **status})

        cluster.react = stuck

    return world


def container(reason: str, message: str) -> Json:
    return {"containerStatuses": [{"name": "files", "state": {"waiting": {"reason": reason, "message": message}}}]}


def forbidden(cluster: WholeCluster) -> None:
    validated(cluster)
    cluster.fail(403, times=9, match="/pods", method="POST", message='pods is forbidden: violates PodSecurity "x"')


def unvalidated(cluster: WholeCluster) -> None:
    cluster.put(ADAPTER, adapter(phase="Merging", conditions=ready_condition(reason="Merging")))


@pytest.mark.parametrize(
    ("world", "words", "code"),
    [
        pytest.param(gone, "v-1.json cannot be read: No such file or directory", 2, id="a report that is gone"),
        pytest.param(cut_short, "is not JSON", 2, id="a report that was cut"),
        pytest.param(unvalidated, "loractl explain fin-v2", 2, id="an adapter that was not validated"),
        pytest.param(forbidden, "violates PodSecurity", 1, id="a pod that may not be made"),
        pytest.param(
            waiting(**container("ErrImageNeverPull", "not present")),
            "cannot start: ErrImageNeverPull not present; it needs",
            1,
            id="an image that is not there",
        ),
        pytest.param(
            waiting(conditions=[{"message": 'persistentvolumeclaim "models" not found'}]),
            'cannot start: persistentvolumeclaim "models" not found',
            1,
            id="a claim that is gone",
        ),
        pytest.param(
            waiting(phase="Failed", reason="Evicted", message="The node had too little memory"),
            "cannot start: Evicted The node had too little memory",
            1,
            id="a pod that is evicted",
        ),
    ],
)
def test_what_fails_is_one_sentence_and_leaves_no_pod(
    loractl: Terminal, cluster: WholeCluster, world: Callable[[WholeCluster], None], words: str, code: int
) -> None:
    world(cluster)
    result = loractl("report", "fin-v2")
    last = result.stderr.splitlines()[-1]
    assert (result.exit_code, last.startswith("loractl: "), words in last) == (code, True, True), result.stderr
    assert helpers(cluster) == []


def test_a_failure_that_status_survives_names_the_summary(loractl: Terminal, cluster: WholeCluster) -> None:
    gone(cluster)
    assert "loractl report fin-v2 --summary" in loractl("report", "fin-v2").stderr


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGINT, id="Ctrl-C"), pytest.param(signal.SIGTERM, id="a pipeline that gives up")]
)
def test_an_interruption_takes_the_pod_along(screen_of: Open, cluster: WholeCluster, how: signal.Signals) -> None:
    waiting(**container("ContainerCreating", "mounting"))(cluster)
    screen = screen_of("report", "fin-v2")
    assert "starts: ContainerCreating mounting …" in screen.until("mounting …")
    assert len(helpers(cluster)) == 1
    screen.process.send_signal(how)
    assert screen.end() == 130
    assert "interrupted: the pod that read was removed" in screen.text
    assert helpers(cluster) == []


def test_on_a_terminal_it_fits_and_the_wait_leaves_no_trace(screen_of: Open, cluster: WholeCluster) -> None:
    validated(cluster)
    screen = screen_of("report", "fin-v2")
    assert screen.end() == 0
    shown = screen.text[screen.text.index("LoRAAdapter ") :].splitlines()
    assert max(cell_len(line) for line in shown) <= 80
    assert "\x1b[31mFAIL\x1b[0m" in screen.raw
    assert "reads the report" not in "\n".join(shown)


def test_a_report_of_another_version_says_that_something_may_be_missing() -> None:
    lines = report_page(ready_adapter(), {**REPORT, "schemaVersion": 9}, width=None)
    assert "schema          version 9; this loractl knows 1 and may leave something out" in lines


def test_a_report_of_the_least_is_shown_as_far_as_it_goes() -> None:
    assert report_page(ready_adapter(), {"overall_score": 0.5, "quality_grade": "poor"}, width=80)[2] == (
        "score           0.500 (poor)"
    )


def test_an_unknown_adapter_is_answered_with_the_nearest(loractl: Terminal, cluster: WholeCluster) -> None:
    validated(cluster)
    cluster.put(ADAPTER, adapter("fin-v3"))
    result = loractl("report", "fin-v22")
    assert (result.exit_code, "there is fin-v2" in result.stderr) == (2, True)

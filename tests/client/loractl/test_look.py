"""get, list, status, explain, report, logs: what a person sees, against an API server over HTTP."""

import json
from uuid import uuid4

import pytest
import yaml

from lora_client.names import ADAPTER, JOB, LABEL_WORKFLOW, LORA_DEPLOYMENT, POD
from tests.client.loractl.conftest import (
    Terminal,
    adapter,
    deployment,
    job,
    job_pod,
    pod,
    ready_adapter,
    ready_condition,
    stable_deployment,
)
from tests.client.loractl.whole_cluster import WholeCluster

PROGRESS = '{"time": "2026-01-01T12:00:00Z", "stage": "merge", "done": 5, "total": 10, "unit": "B", "etaSeconds": 5}'


@pytest.fixture
def serving_pair(cluster: WholeCluster) -> None:
    cluster.put(ADAPTER, ready_adapter())
    cluster.put(LORA_DEPLOYMENT, stable_deployment())


def refused_adapter(cluster: WholeCluster) -> None:
    conditions = ready_condition(reason="WrongBase", message="names another-model", stalled=True)
    jobs = {"merge": {"name": "fin-v2-m-1-1", "attempt": 1, "result": "Refused"}}
    cluster.put(ADAPTER, adapter(phase="Failed", conditions=conditions, jobs=jobs))
    cluster.put(JOB, job(failed="PodFailurePolicy"))
    said = json.dumps(
        {"schemaVersion": 1, "outcome": "Refused", "reason": "WrongBase", "message": "names another-model"}
    )
    ended = {"name": "merge", "state": {"terminated": {"exitCode": 2, "reason": "Error", "message": said}}}
    cluster.put(POD, job_pod(phase="Failed", containerStatuses=[ended]))


def test_get_shows_both_kinds(loractl: Terminal, serving_pair: None) -> None:
    lines = loractl("get").stdout.splitlines()
    assert [line.split()[0] for line in lines if line] == ["NAME", "fin-v2", "NAME", "fin-assistant"]


@pytest.mark.parametrize(
    "what", [["lora", "fin-v2"], ["lora/fin-v2"], ["fin-v2"], ["loraadapters", "fin-v2"]], ids=" ".join
)
def test_one_object_is_found_by_every_way_of_naming_it(loractl: Terminal, serving_pair: None, what: list[str]) -> None:
    assert loractl("get", *what, "-o", "name").stdout == "loraadapter.loraops.dev/fin-v2\n"


def test_json_and_yaml_are_the_object_as_it_is_stored(loractl: Terminal, serving_pair: None) -> None:
    as_json = json.loads(loractl("get", "lorad/fin-assistant", "-o", "json").stdout)
    as_yaml = yaml.safe_load(loractl("get", "lorad/fin-assistant", "-o", "yaml").stdout)
    assert as_json == as_yaml
    assert as_json["status"]["stable"]["revision"] == "61fd0d39"
    assert len(json.loads(loractl("get", "-o", "json").stdout)["items"]) == 2


def test_piped_output_has_no_colour_and_wide_is_whole(loractl: Terminal, serving_pair: None) -> None:
    shown = loractl("get", "lora", "-o", "wide", TERM="xterm-256color").stdout
    assert "\x1b" not in shown
    assert "sha256:" + "ab" * 32 in shown


def test_all_namespaces_show_theirs(loractl: Terminal, cluster: WholeCluster, serving_pair: None) -> None:
    other = ready_adapter("fin-v3")
    other["metadata"]["namespace"] = "trading"
    cluster.put(ADAPTER, other, namespace="trading")
    assert {line.split()[0] for line in loractl("get", "lora", "-A").stdout.splitlines()[1:]} == {"finance", "trading"}
    assert "fin-v3" not in loractl("get", "lora").stdout
    assert "fin-v3" in loractl("get", "lora", "-n", "trading").stdout
    assert "fin-v3" in loractl("-n", "trading", "get", "lora").stdout


def test_an_empty_namespace_is_said_on_stderr(loractl: Terminal) -> None:
    result = loractl("get")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no LoRAAdapter and no LoRADeployment in namespace finance\n"


def test_a_name_nobody_has_comes_with_the_nearest_ones(loractl: Terminal, serving_pair: None) -> None:
    result = loractl("status", "fin-asistant")
    assert result.exit_code == 2
    assert "fin-assistant" in result.stderr
    assert result.stderr.startswith("loractl: ")


def test_status_of_a_deployment_shows_its_adapter_too(loractl: Terminal, serving_pair: None) -> None:
    result = loractl("status", "fin-assistant")
    assert result.exit_code == 0
    assert "answers at      http://fin.example.com/v1/chat/completions" in result.stdout
    assert "0.871 (good)" in result.stdout


@pytest.mark.parametrize(
    ("phase", "reason", "code"),
    [("Rejected", "GatesFailed", 3), ("Failed", "WrongBase", 2), ("Failed", "RetriesSpent", 1)],
)
def test_the_exit_code_of_status_is_the_result(
    loractl: Terminal, cluster: WholeCluster, phase: str, reason: str, code: int
) -> None:
    cluster.put(ADAPTER, adapter(phase=phase, conditions=ready_condition(reason=reason, stalled=True)))
    assert loractl("status", "fin-v2").exit_code == code


def test_a_workflow_is_found_by_its_id(loractl: Terminal, cluster: WholeCluster) -> None:
    identity = str(uuid4())
    for kind, raw in ((ADAPTER, ready_adapter()), (LORA_DEPLOYMENT, stable_deployment())):
        raw["metadata"]["labels"] = {LABEL_WORKFLOW: identity}
        cluster.put(kind, raw)
    assert identity in loractl("list").stdout
    assert "completed" in loractl("list").stdout
    page = loractl("status", "--workflow-id", identity)
    assert page.exit_code == 0
    assert page.stdout.splitlines()[0].split() == ["Workflow", identity, "completed"]
    assert json.loads(loractl("list", "-o", "json").stdout)[0]["adapter"] == "fin-v2"
    assert json.loads(loractl("status", "--workflow-id", identity, "-o", "json").stdout)["status"] == "completed"


def test_no_workflow_is_a_hint(loractl: Terminal) -> None:
    assert "start one with: loractl workflow" in loractl("list").stderr


def test_explain_follows_the_chain_down_to_the_pod(loractl: Terminal, cluster: WholeCluster) -> None:
    refused_adapter(cluster)
    waits = ready_condition(reason="AdapterNotReady", message="LoRAAdapter fin-v2 is Failed", stalled=True)
    cluster.put(LORA_DEPLOYMENT, deployment(phase="Pending", conditions=waits))
    lines = loractl("explain", "fin-assistant").stdout.splitlines()
    assert [line.strip().removeprefix("└─ ").split()[0] for line in lines[:4]] == [
        "LoRADeployment",
        "LoRAAdapter",
        "Job",
        "Pod",
    ]
    assert lines[3].endswith("container merge ended with exit code 2: WrongBase: names another-model")
    assert lines[-1].endswith("`loractl retry fin-v2`.")


def test_explain_for_programs(loractl: Terminal, cluster: WholeCluster) -> None:
    refused_adapter(cluster)
    told = json.loads(loractl("explain", "fin-v2", "-o", "json").stdout)
    assert told["cause"]["subject"] == "Pod fin-v2-m-1-1-x"
    assert told["ready"] is False


def test_explain_without_the_right_to_see_pods_is_shorter_and_says_so(loractl: Terminal, cluster: WholeCluster) -> None:
    refused_adapter(cluster)
    cluster.refused.add("list pods")
    result = loractl("explain", "fin-v2")
    assert result.exit_code == 0
    assert "without pods:" in result.stderr
    assert "Job fin-v2-m-1-1" in result.stdout


def test_logs_of_a_job_are_without_its_progress_unless_asked(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(ADAPTER, ready_adapter())
    running = [{"name": name, "state": {"running": {}}} for name in ("merge",)]
    cluster.put(POD, job_pod(containerStatuses=running))
    cluster.logs["fin-v2-m-1-1-x", "merge"] = ["warning TinyDelta", PROGRESS]
    assert loractl("logs", "fin-v2").stdout == "merge: warning TinyDelta\n"
    assert PROGRESS in loractl("logs", "fin-v2", "--progress").stdout


def test_logs_of_a_deployment_are_those_of_its_pods(
    loractl: Terminal, cluster: WholeCluster, serving_pair: None
) -> None:
    raw = pod("fin-assistant-61fd-x", labels={"loraops.dev/deployment": "fin-assistant"}, phase="Running")
    cluster.put(POD, raw)
    cluster.logs["fin-assistant-61fd-x", "runtime"] = ["one", "two"]
    assert loractl("logs", "fin-assistant").stdout == "runtime: one\nruntime: two\n"
    assert loractl("logs", "fin-assistant", "--tail", "1").stdout == "runtime: two\n"


def test_logs_of_nothing_say_so(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(ADAPTER, ready_adapter())
    result = loractl("logs", "fin-v2")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "there is no log" in result.stderr

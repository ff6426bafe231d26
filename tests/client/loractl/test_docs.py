"""Every command line of docs/loractl.md is run: against an API server where it asks for one, with real files where it merges."""

import json
import os
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_client.names import ADAPTER, CONTROLLER_REVISION, LABEL_WORKFLOW, LORA_DEPLOYMENT, POD
from tests.client.loractl.conftest import (
    Terminal,
    adapter,
    job_pod,
    ready_adapter,
    ready_condition,
    stable_deployment,
)
from tests.client.loractl.test_doctor import fit
from tests.client.loractl.test_prune import working
from tests.client.loractl.test_report import validated
from tests.client.loractl.test_request import answering, rolling
from tests.client.loractl.test_workflow import finishing, running_workflow
from tests.client.loractl.whole_cluster import WholeCluster

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "loractl.md").read_text(encoding="utf-8")
LINES = sorted(
    {
        line[2:]
        for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    }
)
ID = "7c1d5a5e-6a8e-4a57-9f2e-3f0c9b6f1b11"
LOCAL = ("merge", "inspect", "validate", "benchmark")
Json = dict[str, Any]


def serving(cluster: WholeCluster) -> None:
    """A workflow that is completed, with pods and logs."""
    for kind, raw in ((ADAPTER, ready_adapter()), (LORA_DEPLOYMENT, stable_deployment())):
        raw["metadata"]["labels"] = {LABEL_WORKFLOW: ID}
        cluster.put(kind, raw)
    for name, container, pod in (
        (
            "fin-v2-m-1-1-x",
            "merge",
            job_pod(phase="Succeeded", containerStatuses=[{"name": "merge", "state": {"terminated": {"exitCode": 0}}}]),
        ),
        ("d-x", "runtime", job_pod("d-x", job_name="none")),
    ):
        pod["metadata"]["labels"]["loraops.dev/deployment"] = "fin-assistant" if name == "d-x" else "none"
        cluster.put(POD, pod)
        cluster.logs[name, container] = ["a line"]


def broken(cluster: WholeCluster) -> None:
    jobs = {"merge": {"name": "fin-broken-m-1-1", "attempt": 1, "result": "Refused"}}
    conditions = ready_condition(reason="WrongBase", message="names another", stalled=True)
    cluster.put(ADAPTER, adapter("fin-broken", phase="Failed", conditions=conditions, jobs=jobs))


def in_motion(cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, rolling())
    answering(cluster, "Accepted")


def aborting(cluster: WholeCluster) -> None:
    cluster.put(LORA_DEPLOYMENT, rolling())
    answering(cluster, "Accepted", phase="Aborted")


def with_history(cluster: WholeCluster) -> None:
    history = [
        {"deploymentId": f"finance/fin-assistant/{one}", "result": "Succeeded"} for one in ("61fd0d39", "11aa22bb")
    ]
    cluster.put(LORA_DEPLOYMENT, stable_deployment(history=history))
    for number, revision in enumerate(("11aa22bb", "61fd0d39")):
        meta = {"name": f"fin-assistant-{revision}", "labels": {"loraops.dev/deployment": "fin-assistant"}}
        cluster.put(CONTROLLER_REVISION, {"metadata": meta, "revision": number, "data": {"revision": revision}})
    answering(cluster, "Accepted")


WORLDS: dict[str, Callable[[WholeCluster], object]] = {
    "workflow": finishing,
    "cancel": lambda cluster: running_workflow(cluster, ID),
    "explain": broken,
    "retry": broken,
    **dict.fromkeys(("promote", "promote-full", "pause", "resume"), in_motion),
    "abort": aborting,
    "rollback": with_history,
    "doctor": fit,
    "prune": working,
    "report": validated,
}


PLUGIN = "kubectl_complete-lora"


def words_of(line: str) -> list[str]:
    """Arguments; the plugin's form means the same."""
    words = shlex.split(line)
    return words[2:] if words[:2] == ["kubectl", "lora"] else words[1:]


@pytest.mark.parametrize("line", [line for line in LINES if words_of(line)[0] not in LOCAL and PLUGIN not in line])
def test_a_line_of_the_page_works(
    loractl: Terminal, cluster: WholeCluster, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    words = words_of(line)
    WORLDS.get(words[0], serving)(cluster)
    result = loractl(*words)
    assert result.exit_code == 0, f"{line}\n{result.stdout}\n{result.stderr}"
    assert result.output.strip()


def test_the_line_of_kubectls_completion_works(loractl: Terminal, cluster: WholeCluster) -> None:
    serving(cluster)
    (line,) = (line for line in LINES if PLUGIN in line)
    command = [sys.executable, "-c", "from loractl.kubectl_completion import main; main()", *words_of(line)]
    environment = os.environ | {"KUBECONFIG": str(loractl.kubeconfig)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "fin-assistant\nfin-v2\n:4\n", done.stderr


def write_safetensors(path: Path, shapes: dict[str, tuple[int, int]]) -> None:
    """float32 tensors of small numbers, written as the format says."""
    header, data = {}, b""
    for name, (rows, columns) in shapes.items():
        values = struct.pack(f"<{rows * columns}f", *(0.01 * (i % 7 + 1) for i in range(rows * columns)))
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    body = json.dumps(header).encode()
    path.parent.mkdir(parents=True)
    path.write_bytes(struct.pack("<Q", len(body)) + body + data)


def write_models(root: Path) -> None:
    """A base of one tensor and an adapter for it, where the page says they lie."""
    stem = "model.layers.0.self_attn.q_proj"
    write_safetensors(root / "models" / "base" / "model.safetensors", {f"{stem}.weight": (8, 8)})
    (root / "models" / "base" / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 8}))
    shapes = {f"base_model.model.{stem}.lora_A.weight": (2, 8), f"base_model.model.{stem}.lora_B.weight": (8, 2)}
    write_safetensors(root / "adapters" / "v2" / "adapter_model.safetensors", shapes)
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "base_model_name_or_path": "base",
        "target_modules": ["q_proj"],
    }
    (root / "adapters" / "v2" / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.full
@pytest.mark.parametrize("line", [line for line in LINES if words_of(line)[0] in LOCAL])
def test_a_local_line_of_the_page_works_on_real_files(line: str, tmp_path: Path) -> None:
    write_models(tmp_path)
    command = [sys.executable, "-m", "loractl", *words_of(line)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert ("merge.json" in str(list(tmp_path.rglob("merge.json")))) == (" --output " in line)


def test_the_page_has_every_verb() -> None:
    from loractl.cli import app  # noqa: PLC0415

    verbs = {one.name or one.callback.__name__ for one in app.registered_commands if one.callback}
    assert verbs - {words_of(line)[0] for line in LINES if PLUGIN not in line} <= {"watch"}
    assert "`loractl watch`" in PAGE

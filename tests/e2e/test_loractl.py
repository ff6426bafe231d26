"""`loractl` on a real cluster with the real operator: what it explains is true, what it prunes is gone, what it judges is there."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from devcluster.programs import wheel_binary
from tests.e2e.test_bad_input import claim, truncate  # noqa: F401 (a fixture)

pytestmark = pytest.mark.e2e

BUILD = (
    "--base",
    "pvc://models/base",
    "--adapter",
    "pvc://models/adapters/good",
    "--validation-mode",
    "none",
    "--no-deploy",
)
PATIENCE = 300
Done = subprocess.CompletedProcess[str]
Loractl = Callable[..., Done]


@pytest.fixture
def loractl(cluster: Cluster, namespace: str) -> Loractl:
    """The command in the test's namespace."""

    def run(*arguments: str) -> Done:
        command = [
            sys.executable,
            "-m",
            "loractl",
            "--kubeconfig",
            str(cluster.kubeconfig),
            "-n",
            namespace,
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)

    return run


def publish(claim: Path, namespace: str) -> Path:  # noqa: F811
    """An artifact of an adapter that is gone, as a merge leaves it: old, whole, named by nobody."""
    path = claim / "artifacts" / namespace / "gone" / "0123456789abcdef"
    path.mkdir(parents=True)
    digests = [{"digest": f"sha256:{digit * 64}"} for digit in "12"]
    manifest = {"output": {"digest": f"sha256:{'3' * 64}"}, "base": digests[0], "adapters": digests[1:]}
    (path / "merge.json").write_text(json.dumps(manifest))
    (path / "model.safetensors").write_bytes(b"x" * 4096)
    for directory in (claim / "artifacts", *(claim / "artifacts").rglob("*")):
        os.chown(directory, 65532, 65532)
    then = time.time() - 86400
    os.utime(path, (then, then))
    return path


def test_what_nobody_names_is_shown_and_then_removed(
    namespace: str,
    claim: Path,  # noqa: F811
    loractl: Loractl,
) -> None:
    path = publish(claim, namespace)
    store = ("--store", "pvc://models/artifacts")
    looked = loractl("prune", *store)
    assert looked.returncode == 0, looked.stderr
    assert f" {namespace}/gone/0123456789abcdef" in looked.stdout
    assert "named by nobody: 1 directory, 4.3 KiB" in looked.stdout
    assert path.is_dir()
    assert "named by nobody: 0 directories" in loractl("prune", *store, "--min-age", "172800").stdout
    removed = loractl("prune", *store, "--delete", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert "removed 1 directory" in removed.stdout
    assert not path.exists()


def test_a_refused_input_ends_the_workflow_with_2_and_is_explained_down_to_the_pod(
    claim: Path,  # noqa: F811
    loractl: Loractl,
) -> None:
    truncate(claim)
    ended = loractl("workflow", "fin-v2", *BUILD)
    assert ended.returncode == 2, ended.stderr
    assert "LoRAAdapter fin-v2 is Failed (TruncatedFile)" in ended.stdout
    assert loractl("status", "fin-v2").returncode == 2
    assert "failed" in loractl("list").stdout
    told = loractl("explain", "fin-v2").stdout
    assert [line.strip().removeprefix("└─ ").split()[0] for line in told.splitlines()[:3]] == [
        "LoRAAdapter",
        "Job",
        "Pod",
    ]
    assert "container fetch ended with exit code 2: TruncatedFile" in told
    assert "loractl retry fin-v2" in told
    assert "TruncatedFile" in loractl("logs", "fin-v2").stdout


def test_the_doctor_finds_the_devcluster_fit(installed: None, claim: Path, loractl: Loractl) -> None:  # noqa: F811
    found = loractl("doctor")
    assert found.returncode == 0, found.stdout
    for words in ("loraadapters.loraops.dev v1alpha1", "pods ready", "nvidia.com/gpu", "GatewayClass", "claim models"):
        assert words in found.stdout


def test_kubectl_finds_it_as_a_plugin(cluster: Cluster, namespace: str, installed: None, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-lora"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m loractl "$@"\n')
    plugin.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBECONFIG": str(cluster.kubeconfig)}
    command = [str(wheel_binary("kubectl")), "lora", "get", "-n", namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"no LoRAAdapter and no LoRADeployment in namespace {namespace}\n"

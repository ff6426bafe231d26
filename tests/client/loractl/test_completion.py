"""What the shell offers after Tab: names from the cluster, in silence when there is none; in bash, zsh, fish and through kubectl."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster.programs import wheel_binary
from lora_client.names import ADAPTER, CONTROLLER_REVISION, LABEL_WORKFLOW, LORA_DEPLOYMENT
from loractl.cli import PLUGIN_COMPLETION, app
from loractl.kubectl_completion import FILE_OPTIONS
from tests.client.loractl.conftest import Terminal, ready_adapter, stable_deployment
from tests.client.loractl.whole_cluster import WholeCluster

ID = "7c1d5a5e-6a8e-4a57-9f2e-3f0c9b6f1b11"


def offered(loractl: Terminal, line: str) -> list[str]:
    """What bash would show for a line; the last word is the one under the cursor."""
    words = line.split(" ")
    result = loractl(_LORACTL_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    return result.stdout.split()


@pytest.fixture
def pair(cluster: WholeCluster) -> None:
    cluster.put(ADAPTER, ready_adapter())
    running = ready_adapter("legal-v1")
    running["metadata"]["labels"] = {LABEL_WORKFLOW: ID}
    cluster.put(ADAPTER, running)
    cluster.put(LORA_DEPLOYMENT, stable_deployment())
    for number, (name, revision) in enumerate((("fin-assistant", "11aa22bb"), ("legal", "99ff88ee"))):
        meta = {"name": f"{name}-{revision}", "labels": {"loraops.dev/deployment": name}}
        cluster.put(CONTROLLER_REVISION, {"metadata": meta, "revision": number, "data": {"revision": revision}})


@pytest.mark.parametrize(
    ("line", "names"),
    [
        pytest.param("loractl prom", ["promote", "promote-full"], id="verbs"),
        pytest.param("loractl promote ", ["fin-assistant"], id="promote: deployments"),
        pytest.param("loractl report ", ["fin-v2", "legal-v1"], id="report: adapters"),
        pytest.param("loractl status fin", ["fin-assistant", "fin-v2"], id="status: both"),
        pytest.param("loractl status fin-a", ["fin-assistant"], id="only what begins like that"),
        pytest.param("loractl status lora/f", ["lora/fin-v2"], id="a kind before the name"),
        pytest.param("loractl explain lorad/", ["lorad/fin-assistant"], id="the other kind before the name"),
        pytest.param("loractl get l", ["lora", "lorad", "legal-v1"], id="get: kinds, then names"),
        pytest.param("loractl get lorad ", ["fin-assistant"], id="get KIND: its names"),
        pytest.param("loractl get lora fin-v2 ", [], id="get KIND NAME: nothing more"),
        pytest.param("loractl cancel ", [ID], id="cancel: workflows"),
        pytest.param("loractl status --workflow-id 7", [ID], id="status: workflows"),
        pytest.param("loractl rollback fin-assistant --to ", ["11aa22bb"], id="rollback: revisions of that deployment"),
        pytest.param("loractl status -n trading ", [], id="of the namespace on the line"),
        pytest.param("loractl -n trading status ", [], id="of the namespace before the verb"),
        pytest.param("loractl status --context ", ["test"], id="contexts of the kubeconfig"),
        pytest.param("loractl status --kubeconfig /absent --context ", [], id="contexts of the named kubeconfig"),
        pytest.param("loractl get -o ", ["table", "json", "yaml", "wide", "name"], id="forms"),
    ],
)
def test_after_tab_come(loractl: Terminal, pair: None, line: str, names: list[str]) -> None:
    assert offered(loractl, line) == names


def test_without_a_cluster_tab_is_silent(tmp_path: Path) -> None:
    assert offered(Terminal(tmp_path / "absent"), "loractl status ") == []


@pytest.mark.parametrize(
    ("patience", "names"),
    [
        pytest.param("0", [], id="no patience: nothing"),
        pytest.param("long", ["fin-assistant"], id="no number: the usual"),
    ],
)
def test_how_long_the_cluster_may_take_is_a_setting(
    loractl: Terminal, pair: None, monkeypatch: pytest.MonkeyPatch, patience: str, names: list[str]
) -> None:
    monkeypatch.setattr("loractl.completion.PATIENCE_SECONDS", 60.0)
    monkeypatch.setenv("LORA_COMPLETION_SECONDS", patience)
    assert offered(loractl, "loractl promote ") == names


def test_zsh_and_fish_ask_in_their_own_words(loractl: Terminal, pair: None) -> None:
    line = {"_TYPER_COMPLETE_ARGS": "loractl promote fin"}
    zsh = loractl(_LORACTL_COMPLETE="complete_zsh", **line)
    assert zsh.stdout.strip() == "_arguments '*: :((\"fin-assistant\"))'"
    fish = loractl(_LORACTL_COMPLETE="complete_fish", _TYPER_COMPLETE_FISH_ACTION="get-args", **line)
    assert fish.stdout.strip() == "fin-assistant"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The console scripts as an installation has them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, module in (
        ("loractl", "loractl.cli"),
        ("kubectl-lora", "loractl.cli"),
        ("kubectl_complete-lora", "loractl.kubectl_completion"),
    ):
        script = folder / name
        script.write_text(f"#!{sys.executable}\nfrom {module} import main\nmain()\n")
        script.chmod(0o755)
    return folder


def environment(programs: Path, loractl: Terminal) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KUBECONFIG": str(loractl.kubeconfig),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }


BASH = """
eval "$(loractl --show-completion bash)"
COMP_WORDS=(loractl promote fin) COMP_CWORD=2
$(complete -p loractl | sed 's/.*-F \\([^ ]*\\).*/\\1/') loractl
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_bash_itself_completes_a_name_of_the_cluster(programs: Path, loractl: Terminal, pair: None) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH], capture_output=True, text=True, check=False, env=environment(programs, loractl)
    )
    assert done.stdout == "fin-assistant\n", done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["promote", ""], ["fin-assistant", ":4"], id="names, and no files"),
        pytest.param(["repo"], ["report\tThe last validation of an adapter", ":4"], id="verbs with what they do"),
        pytest.param(["workflow", "-f", ""], [":0"], id="files where a file is meant"),
        pytest.param(["merge", "--base", ""], [":0"], id="files for lora-job"),
        pytest.param(["status", "nobody"], [":4"], id="nothing, and no files either"),
    ],
)
def test_kubectl_itself_completes_the_plugin(
    programs: Path, loractl: Terminal, pair: None, words: list[str], expected: list[str]
) -> None:
    command = [str(wheel_binary("kubectl")), "__complete", "lora", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(programs, loractl))
    lines = done.stdout.splitlines()
    assert len(lines) == len(expected), done.stdout + done.stderr
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


def test_every_option_after_which_files_are_offered_exists() -> None:
    from typer.main import get_command  # noqa: PLC0415

    group = get_command(app)
    known = {word for verb in group.commands.values() for option in verb.params for word in option.opts}  # type: ignore[attr-defined]
    assert known >= FILE_OPTIONS


def test_the_plugin_does_not_install_a_completion_that_no_shell_would_call(programs: Path, loractl: Terminal) -> None:
    done = subprocess.run(
        [programs / "kubectl-lora", "--install-completion"],
        capture_output=True, text=True, check=False, env=environment(programs, loractl),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, f"kubectl lora: {PLUGIN_COMPLETION}\n")


def test_the_program_that_kubectl_calls_is_installed() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'kubectl_complete-lora = "loractl.kubectl_completion:main"' in text

"""Every error is one sentence with a way out, and the right exit code; no traceback unless asked."""

import socket
from pathlib import Path

import pytest

from lora_client.names import ADAPTER
from loractl.local import NotInstalledHere, find_lora_job
from tests.client.loractl.conftest import Terminal, ready_adapter
from tests.client.loractl.whole_cluster import WholeCluster
from tests.fakes.api_server import write_kubeconfig


def one_sentence(stderr: str) -> str:
    """stderr, which must be a single line of loractl."""
    assert stderr.startswith("loractl: ")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    return stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["staus"], "status", id="a misspelt verb names the nearest"),
        pytest.param(["status", "--wach"], "--watch", id="a misspelt option names the nearest"),
        pytest.param(["status", "-o", "xml"], "json", id="a form that is none names the forms"),
        pytest.param(["promote"], "'name'", id="a missing name is named"),
        pytest.param(["status", "x", "--workflow-id", "y"], "not both", id="a name and an id"),
        pytest.param(["get", "pods", "x"], "lora or lorad", id="a kind that is not ours"),
        pytest.param(["explain", "pods/x"], "lora/NAME", id="a kind that is not ours before a slash"),
        pytest.param(
            ["status", "x", "--context", "nowhere"], "test", id="a context that is not there names those that are"
        ),
        pytest.param(["status", "x", "--kubeconfig", "/nowhere"], "/nowhere", id="a kubeconfig that is not there"),
    ],
)
def test_what_was_typed_wrong_is_2(loractl: Terminal, cluster: WholeCluster, arguments: list[str], words: str) -> None:
    cluster.put(ADAPTER, ready_adapter())
    result = loractl(*arguments)
    assert result.exit_code == 2
    assert words in one_sentence(result.stderr)


def test_usage_errors_say_where_help_is(loractl: Terminal) -> None:
    assert "(see loractl status --help)" in loractl("status", "--nonsense").stderr


def test_without_a_cluster_the_address_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = Terminal(write_kubeconfig(tmp_path / "kubeconfig", server=server))("get")
    assert result.exit_code == 1
    assert server in one_sentence(result.stderr)


def test_without_a_kubeconfig_it_says_what_to_set(tmp_path: Path) -> None:
    result = Terminal(tmp_path / "absent")("get", HOME=str(tmp_path))
    assert result.exit_code == 1
    assert "set KUBECONFIG" in one_sentence(result.stderr)


def test_without_the_crds_it_says_install(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.installed = False
    result = loractl("get")
    assert result.exit_code == 1
    assert "install the operator" in one_sentence(result.stderr)


@pytest.mark.parametrize("what", [[], ["lora"]], ids=["both kinds", "one kind"])
def test_a_watch_that_cannot_begin_says_why_once(loractl: Terminal, cluster: WholeCluster, what: list[str]) -> None:
    cluster.installed = False
    assert "install the operator" in one_sentence(loractl("watch", *what).stderr)


def test_a_refused_right_is_named(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.refused.add("list loraadapters")
    result = loractl("get")
    assert result.exit_code == 1
    assert "kubectl auth can-i" in one_sentence(result.stderr)


def test_wrong_credentials_are_told(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.token = "another"
    assert "log in again" in one_sentence(loractl("get").stderr)


def test_an_error_of_ours_is_a_sentence_and_debug_shows_where(
    loractl: Terminal, cluster: WholeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("for the test")

    cluster.put(ADAPTER, ready_adapter())
    monkeypatch.setattr("loractl.output.table_of", broken)
    assert "please report it (ZeroDivisionError: for the test)" in one_sentence(loractl("get").stderr)
    for arguments in (["get", "--debug"], ["--debug", "get"]):
        assert "Traceback" in loractl(*arguments).stderr


def test_lora_job_is_found_beside_our_own_interpreter(tmp_path: Path) -> None:
    program = tmp_path / "lora-job"
    program.touch()
    assert find_lora_job(str(tmp_path / "python")) == str(program)


def test_without_lora_job_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalledHere, match=r"pip install 'lora-operator\[job\]'"):
        find_lora_job(str(tmp_path / "python"))

"""What is imported when: --help must not wait for aiohttp nor for rich, and no command for torch or the `kubernetes` package."""

import os
import subprocess
import sys

import pytest

from lora_client.names import ADAPTER
from tests.client.loractl.conftest import Terminal, ready_adapter
from tests.client.loractl.whole_cluster import WholeCluster

FOREIGN = ("torch", "transformers", "lora_job", "kubernetes", "requests", "oauthlib", "chardet", "urllib3", "httpx")
HEAVY = (*FOREIGN, "aiohttp", "rich")


def imported(*arguments: str, **environment: str) -> set[str]:
    """Modules that a run of loractl has loaded at its end."""
    program = (
        "import sys\n"
        "from loractl.cli import app\n"
        "try:\n    app(sys.argv[1:], prog_name='loractl')\n"
        "finally:\n    print('\\n'.join(sorted(sys.modules)), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["workflow", "--help"], ["nonsense"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    found = imported(*arguments)
    assert "loractl.cli" in found
    assert [name for name in HEAVY if name in found] == []


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        pytest.param(("status",), {}, id="an overview"),
        pytest.param(("get", "lora/fin-v2", "-o", "json"), {}, id="one as JSON"),
        pytest.param(
            (),
            {"_LORACTL_COMPLETE": "complete_bash", "COMP_WORDS": "loractl report ", "COMP_CWORD": "2"},
            id="a completion",
        ),
    ],
)
def test_a_command_that_asks_the_cluster_imports_only_http(
    loractl: Terminal, cluster: WholeCluster, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    cluster.put(ADAPTER, ready_adapter())
    found = imported(*arguments, KUBECONFIG=str(loractl.kubeconfig), **environment)
    assert "aiohttp" in found, "it did not ask"
    assert any("loraadapters" in request for request in cluster.requests)
    assert [name for name in FOREIGN if name in found] == []


def test_the_sdk_imports_only_http_when_it_asks(loractl: Terminal, cluster: WholeCluster) -> None:
    program = (
        "import sys\nfrom lora_client import SyncLoRAClient\n"
        "with SyncLoRAClient() as client:\n    client.list_adapters()\n"
        f"print([name for name in {FOREIGN} if name in sys.modules], 'aiohttp' in sys.modules)"
    )
    environment = os.environ | {"KUBECONFIG": str(loractl.kubeconfig)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "[] True\n", done.stderr


def test_the_local_verbs_become_lora_job_and_pass_everything_on() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loractl", "merge", "--base", "/a", "--nobody-knows-this"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("lora-job: InvalidUsage:")
    assert "--nobody-knows-this" in done.stderr


def test_help_of_a_local_verb_is_lora_jobs_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loractl", "inspect", "--help"], capture_output=True, text=True, check=False
    )
    assert "--allow-unverified-base" in done.stdout

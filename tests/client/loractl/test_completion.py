"""What the shell offers after Tab: names from the cluster, in silence when there is none."""

from pathlib import Path

import pytest

from lora_client.names import ADAPTER, LORA_DEPLOYMENT
from tests.client.loractl.conftest import Terminal, ready_adapter, stable_deployment
from tests.client.loractl.whole_cluster import WholeCluster


def offered(loractl: Terminal, line: str) -> list[str]:
    """What bash would show for a line; the last word is the one under the cursor."""
    words = line.split(" ")
    result = loractl(_LORACTL_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    return result.stdout.split()


@pytest.fixture
def pair(cluster: WholeCluster) -> None:
    cluster.put(ADAPTER, ready_adapter())
    cluster.put(LORA_DEPLOYMENT, stable_deployment())


@pytest.mark.parametrize(
    ("line", "names"),
    [
        pytest.param("loractl prom", ["promote", "promote-full"], id="verbs"),
        pytest.param("loractl promote ", ["fin-assistant"], id="promote: deployments"),
        pytest.param("loractl report ", ["fin-v2"], id="report: adapters"),
        pytest.param("loractl status fin", ["fin-assistant", "fin-v2"], id="status: both"),
        pytest.param("loractl status fin-a", ["fin-assistant"], id="only what begins like that"),
        pytest.param("loractl status -n trading ", [], id="of the namespace on the line"),
        pytest.param("loractl -n trading status ", [], id="of the namespace before the verb"),
        pytest.param("loractl status --context ", ["test"], id="contexts of the kubeconfig"),
        pytest.param("loractl get -o ", ["table", "json", "yaml", "wide", "name"], id="forms"),
    ],
)
def test_after_tab_come(loractl: Terminal, pair: None, line: str, names: list[str]) -> None:
    assert offered(loractl, line) == names


def test_without_a_cluster_tab_is_silent(tmp_path: Path) -> None:
    assert offered(Terminal(tmp_path / "absent"), "loractl status ") == []

"""Each instance keeps a slot of addresses; nobody else's cluster on this machine is disturbed."""

from pathlib import Path

import pytest

from devcluster import cluster
from devcluster.cluster import Cluster


@pytest.fixture(autouse=True)
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's network devices, as /sys/class/net lists them."""
    directory = tmp_path / "net"
    directory.mkdir()
    monkeypatch.setattr(cluster, "NETWORK_DEVICES", directory)
    monkeypatch.setenv("DEVCLUSTER_HOME", str(tmp_path / "home"))
    return directory


def slot(name: str) -> int:
    return Cluster(instance=name).instance.slot


def test_an_instance_keeps_its_slot_and_another_gets_the_next() -> None:
    assert [slot("a"), slot("b"), slot("a")] == [0, 1, 0]


def test_addresses_at_which_a_cluster_of_another_home_runs_are_left_alone(devices: Path) -> None:
    (devices / "lkh0").mkdir()
    assert slot("a") == 1


def test_the_slot_stays_while_the_own_cluster_runs(devices: Path) -> None:
    assert slot("a") == 0
    (devices / "lkh0").mkdir()
    assert slot("a") == 0

"""Whose network namespace a pod's is, by the CNI's own records, and that only an instance's own go with it."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from devcluster.addresses import Instance
from devcluster.configs import cni_conflist
from devcluster.pod_networks import NAMESPACES, attachments_of, remove_pod_networks


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    path.mkdir()
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Instance:
    return Instance(name="one", slot=0, home=tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Instance:
    """Its name begins like ours."""
    return Instance(name="one2", slot=1, home=tmp_path)


def write(records: Path, instance: Instance, *, container: str, namespace: str) -> list[Path]:
    """Both records of a sandbox, as libcni writes them."""
    written = []
    loopback = {"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}
    for network, link, config in (
        ("devcluster", "eth0", cni_conflist(instance, node=1)),
        ("cni-loopback", "lo", loopback),
    ):
        interfaces = [{"name": instance.bridge}, {"name": link, "sandbox": f"/var/run/netns/{namespace}"}]
        content = {
            "kind": "cniCacheV1",
            "containerId": container,
            "config": base64.b64encode(json.dumps(config).encode()).decode(),
            "networkName": network,
            "result": {"interfaces": interfaces},
        }
        written.append(records / f"{network}-{container}-{link}")
        written[-1].write_text(json.dumps(content))
    return written


def test_an_attachment_belongs_to_the_instance_whose_address_book_it_uses(
    records: Path, ours: Instance, other: Instance
) -> None:
    write(records, ours, container="a", namespace="cni-1")
    write(records, other, container="b", namespace="cni-2")
    assert [(one.container, one.namespaces) for one in attachments_of(ours, records=records)] == [("a", ("cni-1",))]
    assert [(one.container, one.namespaces) for one in attachments_of(other, records=records)] == [("b", ("cni-2",))]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="an empty file"),
        pytest.param('{"kind": "cniCac', id="a half-written one"),
        pytest.param('{"kind": "cniCacheV2"}', id="one of another version"),
        pytest.param('{"config": "e30=", "result": {}}', id="a network without plugins"),
    ],
)
def test_a_record_that_is_none_is_nobodys_and_hides_no_other(records: Path, ours: Instance, text: str) -> None:
    (records / "a-eth0").write_text(text)
    write(records, ours, container="b", namespace="cni-1")
    assert [one.container for one in attachments_of(ours, records=records)] == ["b"]


def test_a_namespace_that_containerd_did_not_make_is_never_named(records: Path, ours: Instance) -> None:
    write(records, ours, container="a", namespace="lorabox-other")
    assert [one.namespaces for one in attachments_of(ours, records=records)] == [()]


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two real ones."""
    names = [f"cni-{uuid4()}" for _ in range(2)]
    for name in names:
        subprocess.run(["ip", "netns", "add", name], check=True)
    yield names
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_with_an_instance_go_the_namespaces_of_its_pods_and_no_others(
    records: Path, ours: Instance, other: Instance, namespaces: list[str]
) -> None:
    mine, foreign = namespaces
    gone = write(records, ours, container="a", namespace=mine)
    gone += write(records, ours, container="c", namespace="cni-gone-already")
    kept = write(records, other, container="b", namespace=foreign)
    remove_pod_networks(ours, records=records)
    assert [(NAMESPACES / name).exists() for name in namespaces] == [False, True]
    assert [path.exists() for path in gone] == [False] * 4
    assert [path.exists() for path in kept] == [True] * 2
    remove_pod_networks(ours, records=records)  # a second time there is nothing to do

"""Which cluster is meant, as kubectl decides it, and what is said when there is none."""

import asyncio
import json
from pathlib import Path

import pytest

from devcluster.addresses import Instance
from devcluster.certificates import write_certificates
from lora_client import connection
from lora_client.api import Api
from lora_client.client import LoRAClient
from lora_client.connection import Connection, list_contexts, load_connection
from lora_client.errors import Invalid, NoCluster, NotFound, NotInstalled, Unauthorized
from lora_client.names import ADAPTER, LORA_DEPLOYMENT
from lora_client.retrying import Backoff
from lora_client.watching import watch_objects
from tests.client.objects import deployment
from tests.fakes.api_server import FakeApiServer, write_kubeconfig


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster from the machine that runs the test."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def two(path: Path, *, current: str = "a") -> Path:
    content = {
        "current-context": current,
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [
            {"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "finance"}},
            {"name": "b", "context": {"cluster": "c", "user": "u"}},
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


async def test_the_current_context_and_its_namespace_are_taken(tmp_path: Path) -> None:
    found = await load_connection(kubeconfig=two(tmp_path / "k"))
    assert (found.context, found.namespace, found.server) == ("a", "finance", "http://127.0.0.1:1")


async def test_a_context_without_a_namespace_means_default(tmp_path: Path) -> None:
    assert (await load_connection(kubeconfig=two(tmp_path / "k"), context="b")).namespace == "default"


async def test_an_explicit_namespace_wins(tmp_path: Path) -> None:
    assert (await load_connection(kubeconfig=two(tmp_path / "k"), namespace="other")).namespace == "other"


async def test_the_first_of_several_files_decides_the_current_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two(tmp_path / "1", current="b"), two(tmp_path / "2", current="a")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/absent:{first}:{second}")
    assert (await load_connection()).context == "b"
    assert [(one.name, one.current) for one in list_contexts()] == [("a", False), ("b", True)]


async def test_an_unknown_context_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="context aa is not in the kubeconfig; there is a"):
        await load_connection(kubeconfig=two(tmp_path / "k"), context="aa")


async def test_no_kubeconfig_and_no_pod_says_what_to_do() -> None:
    with pytest.raises(NoCluster, match="set KUBECONFIG"):
        await load_connection()


async def test_a_kubeconfig_without_a_current_context_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(NoCluster, match="choose one of a, b"):
        await load_connection(kubeconfig=two(tmp_path / "k", current=""))


async def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(Invalid, match=str(path)):
        await load_connection(kubeconfig=path)


async def test_an_explicit_kubeconfig_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no such file"):
        await load_connection(kubeconfig=tmp_path / "absent")


async def test_in_a_pod_the_service_account_and_its_namespace_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = Instance(name="pod", slot=0, home=tmp_path)
    write_certificates(pod, nodes=0)
    authority = (pod.directory / "pki" / "ca.crt").read_text(encoding="utf-8")
    for name, content in {"token": "t\n", "ca.crt": authority, "namespace": "team-a"}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    found = await load_connection()
    assert (found.server, found.namespace, found.context) == ("https://10.0.0.1:443", "team-a", "")
    assert found.login.headers == (("Authorization", "Bearer t"),)
    assert found.login.tls is not None
    assert len(found.login.tls.get_ca_certs()) == 1
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert (await load_connection()).server == "https://[fd00::1]:443"


async def test_in_a_pod_whose_authority_is_broken_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("broken", encoding="utf-8")
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(NoCluster, match="ServiceAccount cannot be used"):
        await load_connection()


async def test_a_cluster_that_is_not_running_is_told_quickly_with_its_address(
    tmp_path: Path, quick: Backoff, pauses: list[float]
) -> None:
    path = write_kubeconfig(tmp_path / "k", server="http://127.0.0.1:1")
    async with LoRAClient.connect(kubeconfig=str(path), backoff=quick) as client:
        with pytest.raises(NoCluster, match=r"does not answer .*context test, server http://127\.0\.0\.1:1"):
            await client.list_adapters()
    assert len(pauses) == 2


async def test_a_cluster_without_the_operator_says_install(client: LoRAClient, api: FakeApiServer) -> None:
    api.installed = False
    with pytest.raises(NotInstalled, match="install the operator"):
        await client.get_adapter("fin")


async def test_wrong_credentials_say_log_in_again(client: LoRAClient, api: FakeApiServer) -> None:
    api.token = "another"
    with pytest.raises(Unauthorized, match="log in again"):
        await client.list_adapters()


async def test_renewed_credentials_are_taken_up_without_a_word(
    client: LoRAClient, api: FakeApiServer, server: str, kubeconfig: Path
) -> None:
    await client.list_adapters()
    api.token = "fresh"
    write_kubeconfig(kubeconfig, server=server, token="fresh")
    assert await client.list_adapters() == []


async def test_many_tasks_that_meet_a_401_together_fetch_new_credentials_once(
    api: FakeApiServer, server: str, kubeconfig: Path, quick: Backoff
) -> None:
    loads = 0

    async def reconnect() -> Connection:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.05)  # as a login program does: everybody else meets the 401 meanwhile
        return await load_connection(kubeconfig=write_kubeconfig(kubeconfig, server=server, token="fresh"))

    async with Api(await load_connection(kubeconfig=kubeconfig), backoff=quick, reconnect=reconnect) as connected:
        connected.move_to("trading")
        api.put(LORA_DEPLOYMENT, deployment("one"), namespace="trading")
        changes = aiter(watch_objects(connected, LORA_DEPLOYMENT, namespace="trading"))
        assert (await anext(changes)).type == "Added"
        following = asyncio.ensure_future(anext(changes))  # a stream that was opened with the old token
        api.token = "fresh"
        found = await asyncio.gather(*(connected.list(ADAPTER, namespace="trading") for _ in range(20)))
        assert (found, loads) == ([[]] * 20, 1)
        assert connected.connection.namespace == "trading"
        api.put(LORA_DEPLOYMENT, deployment("two"), namespace="trading")
        async with asyncio.timeout(20):
            assert (await following).object["metadata"]["name"] == "two"


async def test_credentials_that_are_refused_again_are_not_fetched_for_ever(
    api: FakeApiServer, kubeconfig: Path, quick: Backoff
) -> None:
    loads = 0

    async def reconnect() -> Connection:
        nonlocal loads
        loads += 1
        return await load_connection(kubeconfig=kubeconfig)

    api.token = "another"
    async with Api(await load_connection(kubeconfig=kubeconfig), backoff=quick, reconnect=reconnect) as connected:
        with pytest.raises(Unauthorized, match="log in again"):
            await connected.list(ADAPTER, namespace="finance")
    assert loads == 1

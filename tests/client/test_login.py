"""Logging in as kubectl does: over real TLS, by certificate, token, file, password or program, and as somebody else."""

import asyncio
import base64
import json
import ssl
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from devcluster.addresses import Instance
from devcluster.certificates import write_certificates
from lora_client.api import Api
from lora_client.connection import load_connection
from lora_client.errors import NoCluster
from lora_client.names import ADAPTER
from lora_client.retrying import Backoff

Json = dict[str, Any]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority, and what it issued."""
    instance = Instance(name="tls", slot=0, home=tmp_path_factory.mktemp("pki"))
    write_certificates(instance, nodes=0)
    return instance.directory / "pki"


@dataclass
class Door:
    """A server that knows its clients by certificate, and remembers who asked."""

    port: int = 0
    names: list[str] = field(default_factory=list)
    headers: list[list[tuple[str, str]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peercert") or {}
        self.names += [value for part in peer.get("subject", ()) for key, value in part if key == "commonName"]
        self.headers.append(list(request.headers.items()))
        return web.json_response({"items": [], "metadata": {}})

    def said(self, name: str) -> list[str]:
        """Values of a header of the last request."""
        return [value for key, value in self.headers[-1] if key == name]


@pytest.fixture
async def door(pki: Path) -> AsyncIterator[Door]:
    found = Door()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


def data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@dataclass
class Config:
    """Writes kubeconfigs that lead to the door."""

    folder: Path
    door: Door
    pki: Path

    def write(self, *, user: Json, cluster: Json | None = None) -> Path:
        where = {"server": f"https://127.0.0.1:{self.door.port}/", "certificate-authority": str(self.pki / "ca.crt")}
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": where if cluster is None else {**where, **cluster}}],
            "users": [{"name": "u", "user": user}],
        }
        path = self.folder / "config"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path


@pytest.fixture
def config(tmp_path: Path, door: Door, pki: Path) -> Config:
    return Config(tmp_path, door, pki)


async def ask(kubeconfig: Path) -> None:
    """One request, tried once."""
    async with await Api.connect(kubeconfig=str(kubeconfig), backoff=Backoff(attempts=1)) as api:
        assert await api.list(ADAPTER, namespace="finance") == []


async def test_a_client_certificate_from_data_logs_in_and_leaves_no_key_behind(
    config: Config, door: Door, pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    user = {
        "client-certificate-data": data(pki / "admin.crt"),
        "client-key-data": data(pki / "admin.key"),
    }
    await ask(config.write(user=user))
    assert door.names == ["admin"]
    assert list(scratch.iterdir()) == []


async def test_certificate_files_are_relative_to_the_kubeconfig(config: Config, door: Door, pki: Path) -> None:
    for name in ("admin.crt", "admin.key"):
        (config.folder / name).write_bytes((pki / name).read_bytes())
    await ask(config.write(user={"client-certificate": "admin.crt", "client-key": "admin.key"}))
    assert door.names == ["admin"]


async def test_an_authority_that_did_not_sign_the_server_is_told(config: Config, tmp_path: Path) -> None:
    another = Instance(name="else", slot=1, home=tmp_path)
    write_certificates(another, nodes=0)
    cluster = {"certificate-authority": str(another.directory / "pki" / "ca.crt")}
    with pytest.raises(NoCluster, match="certificate that is not trusted"):
        await ask(config.write(user={"token": "t"}, cluster=cluster))


@pytest.mark.parametrize(
    ("cluster", "fits"),
    [
        pytest.param({"tls-server-name": "kubernetes.default.svc"}, True, id="a name that the certificate has"),
        pytest.param({"tls-server-name": "elsewhere"}, False, id="a name that it has not"),
        pytest.param(
            {"tls-server-name": "elsewhere", "insecure-skip-tls-verify": True}, True, id="any name, unverified"
        ),
    ],
)
async def test_the_server_is_known_by(config: Config, cluster: Json, fits: bool) -> None:
    path = config.write(user={"token": "t"}, cluster=cluster)
    if fits:
        await ask(path)
    else:
        with pytest.raises(NoCluster, match="not trusted"):
            await ask(path)


@pytest.mark.parametrize(
    ("user", "header"),
    [
        pytest.param({"token": "abc"}, "Bearer abc", id="a token"),
        pytest.param({"token": "abc", "tokenFile": "token"}, "Bearer abc", id="a token before a file"),
        pytest.param({"tokenFile": "token"}, "Bearer from-file", id="a file"),
        pytest.param({"username": "ana", "password": "s:1"}, "Basic YW5hOnM6MQ==", id="a password"),
    ],
)
async def test_the_authorization_is_that_of(config: Config, door: Door, user: Json, header: str) -> None:
    (config.folder / "token").write_text("from-file\n", encoding="utf-8")
    await ask(config.write(user=user))
    assert door.said("Authorization") == [header]


async def test_whom_the_kubeconfig_impersonates_the_requests_impersonate(config: Config, door: Door) -> None:
    user = {
        "token": "t",
        "as": "eve",
        "as-uid": "7",
        "as-groups": ["readers", "night"],
        "as-user-extra": {"scope": ["a"]},
    }
    await ask(config.write(user=user))
    found = {name: door.said(name) for name in ("Impersonate-User", "Impersonate-Group", "Impersonate-Extra-scope")}
    assert found == {
        "Impersonate-User": ["eve"],
        "Impersonate-Group": ["readers", "night"],
        "Impersonate-Extra-scope": ["a"],
    }


PLUGIN = """
import json, os, sys
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert asked["kind"] == "ExecCredential" and asked["spec"]["interactive"] is False
if os.environ["MODE"] == "fail":
    sys.exit("the session has ended")
status = {"token": asked["spec"]["cluster"]["server"] + "|" + sys.argv[1]}
if os.environ["MODE"] == "certificate":
    status = {"clientCertificateData": open(sys.argv[1]).read(), "clientKeyData": open(sys.argv[2]).read()}
if os.environ["MODE"] == "empty":
    status = {}
print(json.dumps({"apiVersion": asked["apiVersion"], "kind": "ExecCredential", "status": status}))
"""


def plugin(config: Config, *arguments: str, mode: str) -> Json:
    """A login program beside the kubeconfig, named relatively as kubectl allows."""
    program = config.folder / "bin" / "login"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!{sys.executable}\n{PLUGIN}", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "bin/login",
            "args": list(arguments),
            "env": [{"name": "MODE", "value": mode}],
            "provideClusterInfo": True,
            "interactiveMode": "Never",
        }
    }


async def test_a_program_gives_a_token_for_the_cluster_that_it_is_told_of(config: Config, door: Door) -> None:
    await ask(config.write(user=plugin(config, "ana", mode="token")))
    assert door.said("Authorization") == [f"Bearer https://127.0.0.1:{door.port}/|ana"]


async def test_a_program_gives_a_certificate(config: Config, door: Door, pki: Path) -> None:
    await ask(config.write(user=plugin(config, str(pki / "admin.crt"), str(pki / "admin.key"), mode="certificate")))
    assert (door.names, door.said("Authorization")) == (["admin"], [])


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        pytest.param("fail", "ended with 1: the session has ended; log in again", id="that fails, with its words"),
        pytest.param("empty", "neither a token nor a certificate", id="that gives nothing"),
    ],
)
async def test_a_program_is_told_about(config: Config, mode: str, words: str) -> None:
    with pytest.raises(NoCluster, match=words):
        await load_connection(kubeconfig=config.write(user=plugin(config, "x", mode=mode)))


async def test_a_program_that_is_not_installed_is_told_with_its_hint(config: Config) -> None:
    user = {"exec": {"command": "no-such-login", "apiVersion": "v1", "installHint": "get it\nfrom the portal"}}
    with pytest.raises(NoCluster, match="No such file or directory; get it from the portal"):
        await load_connection(kubeconfig=config.write(user=user))


async def test_an_older_auth_provider_still_logs_in(config: Config, door: Door) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 4102444800}).encode()).decode().rstrip("=")
    token = f"e30.{claims}.c2ln"
    await ask(config.write(user={"auth-provider": {"name": "oidc", "config": {"id-token": token}}}))
    assert door.said("Authorization") == [f"Bearer {token}"]


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        pytest.param(
            {"client-certificate": "gone.pem"}, {}, "client-certificate .*gone.pem: No such file", id="a file"
        ),
        pytest.param({"client-key-data": "!"}, {"server": "127.0.0.1"}, "server: found '127.0.0.1'", id="a server"),
        pytest.param({"client-certificate-data": "QQ=="}, {}, "certificates .* cannot be used", id="a certificate"),
        pytest.param({"auth-provider": {"name": "x"}}, {}, "auth-provider x is not supported", id="a provider"),
    ],
)
async def test_what_cannot_be_used_is_named_with_its_place(
    config: Config, user: Json, cluster: Json, words: str
) -> None:
    with pytest.raises(NoCluster, match=words):
        await load_connection(kubeconfig=config.write(user=user, cluster=cluster))


async def test_a_context_that_names_what_is_not_there_says_so(config: Config) -> None:
    path = config.write(user={})
    content = json.loads(path.read_text(encoding="utf-8"))
    content["contexts"][0]["context"] = {"cluster": "gone", "user": "nobody"}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(NoCluster, match=r"context c of .* names cluster gone and user nobody"):
        await asyncio.wait_for(load_connection(kubeconfig=path), 10)

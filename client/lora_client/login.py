"""How to log in to a cluster: its address, TLS, and the headers that say who asks, from entries of a kubeconfig.

    user: exec plugin ─► token ─► tokenFile ─► username and password       (the first that is there)
          client-certificate and -key go into TLS; `as…` becomes impersonation
          auth-provider (kubectl's older plugins) is left to the `kubernetes` package, which is then imported: two seconds

Made of aiohttp and ssl alone, because importing any part of `kubernetes` imports all its clients (docs/decisions/0087).
"""

import base64
import binascii
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_client.credential_plugin import PluginAnswer, run_plugin
from lora_client.errors import NoCluster
from lora_client.kubeconfig import Entry

__all__ = ["Headers", "Login", "login_of"]

Headers = tuple[tuple[str, str], ...]
CONFIDENTIAL = 0o600


@dataclass(frozen=True)
class Login:
    """`server` as the kubeconfig writes it, without a slash at its end. `headers` may repeat a name (impersonated groups)."""

    server: str
    headers: Headers = ()
    tls: ssl.SSLContext | None = None
    """None: plain HTTP."""
    server_name: str = ""
    """What the certificate has to name, where that is not the server's host."""
    proxy: str = ""
    """Empty: what the environment says (HTTPS_PROXY, NO_PROXY)."""


async def login_of(cluster: Entry, user: Entry | None) -> Login:
    """The login that both entries describe; None is a user without credentials.

    Raises:
        NoCluster: an entry lacks what it needs, a file is not there, or a credential plugin failed.
    """
    who = user or Entry("", {}, cluster.file)
    server = str(cluster.content.get("server") or "").rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise NoCluster(
            f"cluster {cluster.name} of {cluster.file}: server: found {server!r}, expected https://HOST:PORT"
        )
    plugin = await run_plugin(who, cluster) if who.content.get("exec") else PluginAnswer()
    return Login(
        server=server,
        headers=(*await _authorization(who, plugin), *_impersonation(who.content)),
        tls=_tls(cluster, who, plugin) if server.startswith("https") else None,
        server_name=str(cluster.content.get("tls-server-name") or ""),
        proxy=str(cluster.content.get("proxy-url") or ""),
    )


async def _authorization(user: Entry, plugin: PluginAnswer) -> Headers:
    content = user.content
    if plugin.token:
        return (("Authorization", f"Bearer {plugin.token}"),)
    if content.get("auth-provider"):
        return (("Authorization", await _of_provider(user)),)
    token = str(content.get("token") or "")
    file = user.path("tokenFile")
    if not token and file is not None:
        token = _bytes_of(file, user, "tokenFile").decode().strip()
    if token:
        return (("Authorization", f"Bearer {token}"),)
    if content.get("username"):
        pair = f"{content['username']}:{content.get('password', '')}"
        return (("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"),)
    return ()


async def _of_provider(user: Entry) -> str:
    from kubernetes.aio import client, config  # noqa: PLC0415 - two seconds that only users of old plugins pay

    configuration = client.Configuration()
    whole = {
        "current-context": "only",
        "clusters": [{"name": "only", "cluster": {"server": "http://localhost"}}],
        "users": [{"name": "only", "user": dict(user.content)}],
        "contexts": [{"name": "only", "context": {"cluster": "only", "user": "only"}}],
    }
    try:
        await config.load_kube_config_from_dict(whole, client_configuration=configuration)
    except (config.ConfigException, OSError, KeyError, TypeError, ValueError) as error:
        raise NoCluster(f"user {user.name} of {user.file}: auth-provider: {error}; log in again") from error
    found = str(configuration.api_key.get("BearerToken") or "")
    if not found:
        name = user.content["auth-provider"].get("name")
        raise NoCluster(
            f"user {user.name} of {user.file}: auth-provider {name} is not supported; use an exec plugin, as kubectl demands too"
        )
    return found


def _impersonation(content: Mapping[str, Any]) -> Headers:
    """`kubectl --as` kept in the kubeconfig: without these headers one would act with one's own, often larger, rights."""
    found = [("Impersonate-User", content.get("as")), ("Impersonate-Uid", content.get("as-uid"))]
    found += [("Impersonate-Group", group) for group in content.get("as-groups") or ()]
    for key, values in (content.get("as-user-extra") or {}).items():
        found += [(f"Impersonate-Extra-{key}", value) for value in values]
    return tuple((name, str(value)) for name, value in found if value)


def _tls(cluster: Entry, user: Entry, plugin: PluginAnswer) -> ssl.SSLContext:
    authority = _content(cluster, "certificate-authority")
    try:
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        certificate = plugin.certificate or _content(user, "client-certificate")
        if certificate:
            _load_chain(context, certificate, plugin.key or _content(user, "client-key"))
    except (ssl.SSLError, ValueError) as error:
        raise NoCluster(
            f"the certificates of cluster {cluster.name} and user {user.name} in {cluster.file} cannot be used: {error}; "
            "log in again, or correct the file"
        ) from error
    if cluster.content.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Python reads a key only from a file: one that nobody else may read, and that is gone again at once."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        path = Path(file.name)
        path.chmod(CONFIDENTIAL)
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(path)


def _content(entry: Entry, key: str) -> bytes:
    """`KEY-data` (base64), else the file that `KEY` names; empty where there is neither."""
    data = entry.content.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(str(data), validate=False)
        except binascii.Error as error:
            raise NoCluster(
                f"{entry.name} of {entry.file}: {key}-data is not base64: {error}; correct the file"
            ) from None
    file = entry.path(key)
    return b"" if file is None else _bytes_of(file, entry, key)


def _bytes_of(file: Path, entry: Entry, key: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise NoCluster(
            f"{entry.name} of {entry.file}: {key} {file}: {error.strerror}; log in again, or correct it"
        ) from None

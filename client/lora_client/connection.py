"""Which cluster is meant, exactly as kubectl decides it, and the credentials for it.

    explicit kubeconfig ─► $KUBECONFIG (a list of files) ─► ~/.kube/config ─► the pod's own ServiceAccount
    namespace: explicit ─► the context's ─► (in a pod) $POD_NAMESPACE or the ServiceAccount's ─► default

kubernetes.aio is imported only when a connection is really made, so that `--help` of a program stays quick.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lora_client.errors import Invalid, NoCluster, not_found

__all__ = ["Connection", "Context", "list_contexts", "load_connection"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Context:
    """One entry of `contexts` in the kubeconfig. `namespace` is empty where the entry names none."""

    name: str
    cluster: str
    user: str
    namespace: str
    current: bool


@dataclass(frozen=True)
class Connection:
    """A cluster and how to log in to it. `configuration` is a kubernetes.aio Configuration."""

    configuration: Any
    server: str
    namespace: str
    context: str
    """Empty inside a pod."""

    @property
    def where(self) -> str:
        """The cluster in words, for messages."""
        return f"context {self.context}, server {self.server}" if self.context else f"server {self.server}"


def list_contexts(kubeconfig: str | Path | None = None) -> list[Context]:
    """Contexts of the kubeconfig in their order; empty when there is no kubeconfig.

    Raises:
        Invalid: a file is not a kubeconfig.
    """
    files = _files(kubeconfig)
    current = next((str(raw["current-context"]) for raw in map(_read, files) if raw.get("current-context")), "")
    found: dict[str, Context] = {}
    for raw in map(_read, files):
        for entry in raw.get("contexts") or ():
            content = entry.get("context") or {}
            name = str(entry.get("name", ""))
            found.setdefault(
                name,
                Context(
                    name=name,
                    cluster=str(content.get("cluster", "")),
                    user=str(content.get("user", "")),
                    namespace=str(content.get("namespace") or ""),
                    current=name == current,
                ),
            )
    return list(found.values())


async def load_connection(
    *, kubeconfig: str | Path | None = None, context: str | None = None, namespace: str | None = None
) -> Connection:
    """Finds the cluster and loads the credentials; talks to nobody but credential plugins.

    Raises:
        NoCluster: there is neither a kubeconfig with a current context nor a ServiceAccount.
        NotFound: the named context is not in the kubeconfig.
    """
    contexts = list_contexts(kubeconfig)
    chosen = _chosen(contexts, context)
    if chosen is None:
        if _in_pod():
            return _of_pod(namespace)
        raise NoCluster(_no_context(contexts, kubeconfig))
    return await _of_context(chosen, kubeconfig=kubeconfig, namespace=namespace)


def _chosen(contexts: list[Context], context: str | None) -> Context | None:
    if context is None:
        return next((one for one in contexts if one.current), None)
    named = next((one for one in contexts if one.name == context), None)
    if named is None:
        raise not_found("context", context, known=(one.name for one in contexts), where="the kubeconfig")
    return named


def _no_context(contexts: list[Context], kubeconfig: str | Path | None) -> str:
    places = os.pathsep.join(_places(kubeconfig))
    if contexts:
        names = ", ".join(one.name for one in contexts)
        return f"{places} has no current context; choose one of {names}, e.g. with kubectl config use-context"
    return (
        f"no cluster: {places} does not exist or names no context, and this is not a pod with a ServiceAccount; "
        "set KUBECONFIG, or write the file with your cluster's login command"
    )


async def _of_context(chosen: Context, *, kubeconfig: str | Path | None, namespace: str | None) -> Connection:
    from kubernetes.aio import client, config  # noqa: PLC0415 - half a second that --help must not pay

    configuration = client.Configuration()
    files = os.pathsep.join(map(str, _files(kubeconfig)))
    try:
        await config.load_kube_config(
            config_file=files, context=chosen.name, client_configuration=configuration, persist_config=False
        )
    except (config.ConfigException, OSError, KeyError, TypeError, ValueError) as error:
        raise NoCluster(
            f"context {chosen.name} of {files} cannot be used: {error}; log in again, or correct the file"
        ) from error
    return Connection(
        configuration=configuration,
        server=str(configuration.host),
        namespace=namespace or chosen.namespace or "default",
        context=chosen.name,
    )


def _in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").is_file()


def _of_pod(namespace: str | None) -> Connection:
    from kubernetes.aio import client, config  # noqa: PLC0415 - as above

    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise NoCluster(
            f"the pod's ServiceAccount cannot be used: {error}; set automountServiceAccountToken: true"
        ) from error
    own = os.environ.get("POD_NAMESPACE") or _own_namespace()
    return Connection(
        configuration=configuration, server=str(configuration.host), namespace=namespace or own, context=""
    )


def _own_namespace() -> str:
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"


def _places(kubeconfig: str | Path | None) -> list[str]:
    if kubeconfig is not None:
        return [str(kubeconfig)]
    listed = [place for place in os.environ.get("KUBECONFIG", "").split(os.pathsep) if place]
    return listed or [str(Path("~/.kube/config").expanduser())]


def _files(kubeconfig: str | Path | None) -> list[Path]:
    """Those that exist; an explicit one must."""
    files = [Path(place).expanduser() for place in _places(kubeconfig)]
    if kubeconfig is not None and not files[0].is_file():
        raise Invalid(f"kubeconfig {files[0]}: there is no such file; check the path")
    return [file for file in files if file.is_file()]


def _read(file: Path) -> Mapping[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise Invalid(f"kubeconfig {file}: cannot be read as YAML ({first}); correct the file") from error
    if not isinstance(raw, dict):
        raise Invalid(
            f"kubeconfig {file}: found {type(raw).__name__}, expected a mapping with clusters, users, contexts"
        )
    return raw

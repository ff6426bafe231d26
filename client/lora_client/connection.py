"""Which cluster is meant, exactly as kubectl decides it, and the credentials for it.

explicit kubeconfig ─► $KUBECONFIG (a list of files) ─► ~/.kube/config ─► the pod's own ServiceAccount
namespace: explicit ─► the context's ─► (in a pod) $POD_NAMESPACE or the ServiceAccount's ─► default
"""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from lora_client.errors import NoCluster, not_found
from lora_client.kubeconfig import Context, Kubeconfig, list_contexts, read_kubeconfig
from lora_client.login import Login, login_of

__all__ = ["Connection", "Context", "list_contexts", "load_connection"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Connection:
    """A cluster and how to log in to it."""

    login: Login
    namespace: str
    context: str
    """Empty inside a pod."""

    @property
    def server(self) -> str:
        """Its address."""
        return self.login.server

    @property
    def where(self) -> str:
        """The cluster in words, for messages."""
        return f"context {self.context}, server {self.server}" if self.context else f"server {self.server}"


async def load_connection(
    *, kubeconfig: str | Path | None = None, context: str | None = None, namespace: str | None = None
) -> Connection:
    """Finds the cluster and loads the credentials; talks to nobody but credential plugins.

    Raises:
        NoCluster: there is neither a kubeconfig with a current context nor a ServiceAccount.
        NotFound: the named context is not in the kubeconfig.
    """
    found = read_kubeconfig(kubeconfig)
    name = context if context is not None else found.current
    if context is not None and name not in found.contexts:
        raise not_found("context", name, known=found.contexts, where="the kubeconfig")
    if name in found.contexts:
        return await _of_context(found, found.context(name), namespace=namespace)
    if _in_pod():
        return _of_pod(namespace)
    raise NoCluster(_no_context(found))


def _no_context(found: Kubeconfig) -> str:
    if found.contexts:
        names = ", ".join(found.contexts)
        return f"{found.places} has no current context; choose one of {names}, e.g. with kubectl config use-context"
    return (
        f"no cluster: {found.places} does not exist or names no context, and this is not a pod with a ServiceAccount; "
        "set KUBECONFIG, or write the file with your cluster's login command"
    )


async def _of_context(found: Kubeconfig, chosen: Context, *, namespace: str | None) -> Connection:
    cluster = found.clusters.get(chosen.cluster)
    absent = [f"cluster {chosen.cluster}"] if cluster is None else []
    absent += [f"user {chosen.user}"] if chosen.user and chosen.user not in found.users else []
    if cluster is None or absent:
        raise NoCluster(
            f"context {chosen.name} of {found.places} names {' and '.join(absent)}, which it does not have; "
            "log in again, or correct the file"
        )
    return Connection(
        login=await login_of(cluster, found.users.get(chosen.user)),
        namespace=namespace or chosen.namespace or "default",
        context=chosen.name,
    )


def _in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").is_file()


def _of_pod(namespace: str | None) -> Connection:
    """Read anew at every connection: the kubelet renews the token about once an hour."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        token = (SERVICE_ACCOUNT / "token").read_text(encoding="utf-8").strip()
        tls = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    except OSError as error:  # an ssl.SSLError is one too
        raise NoCluster(
            f"the pod's ServiceAccount cannot be used: {error}; set automountServiceAccountToken: true"
        ) from error
    login = Login(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        headers=(("Authorization", f"Bearer {token}"),),
        tls=tls,
    )
    return Connection(
        login=login, namespace=namespace or os.environ.get("POD_NAMESPACE") or _own_namespace(), context=""
    )


def _own_namespace() -> str:
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"

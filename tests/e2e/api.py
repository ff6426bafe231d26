"""The API server of the devcluster over one connection: what is asked a hundred times a minute is not asked through kubectl."""

import ssl

import httpx
import yaml

from devcluster.cluster import Cluster

__all__ = ["LORA", "ROUTES", "connect"]

LORA = "/apis/loraops.dev/v1alpha1"
ROUTES = "/apis/gateway.networking.k8s.io/v1"
QUIET_SECONDS = 1.0  # a watch that says nothing for so long is asked again from where it was


def connect(cluster: Cluster) -> httpx.Client:
    """As the administrator of the cluster's kubeconfig."""
    raw = yaml.safe_load(cluster.kubeconfig.read_text())
    where, who = raw["clusters"][0]["cluster"], raw["users"][0]["user"]
    context = ssl.create_default_context(cafile=where["certificate-authority"])
    context.load_cert_chain(who["client-certificate"], who["client-key"])
    timeout = httpx.Timeout(10, read=QUIET_SECONDS)
    return httpx.Client(base_url=where["server"], verify=context, trust_env=False, timeout=timeout)

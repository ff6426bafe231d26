"""The API server of the devcluster over one connection: what is asked a hundred times a minute is not asked through kubectl."""

import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import yaml

from devcluster.cluster import Cluster

__all__ = ["LORA", "ROUTES", "connect", "follow"]

Json = dict[str, Any]
LORA = "/apis/loraops.dev/v1alpha1"
ROUTES = "/apis/gateway.networking.k8s.io/v1"
ANSWER_SECONDS = 30.0  # on a busy machine
QUIET_SECONDS = 1.0  # a watch that says nothing for so long is asked again from where it was


def connect(cluster: Cluster) -> httpx.Client:
    """As the administrator of the cluster's kubeconfig."""
    raw = yaml.safe_load(cluster.kubeconfig.read_text())
    where, who = raw["clusters"][0]["cluster"], raw["users"][0]["user"]
    context = ssl.create_default_context(cafile=where["certificate-authority"])
    context.load_cert_chain(who["client-certificate"], who["client-key"])
    return httpx.Client(base_url=where["server"], verify=context, trust_env=False, timeout=ANSWER_SECONDS)


def follow(
    cluster: Cluster,
    path: str,
    params: Json,
    see: Callable[[str, Json], None],
    *,
    over: threading.Event,
    listed: Callable[[], object] = lambda: None,
) -> None:
    """Each object (`ADDED`), then each change of one by the kind of its event, until `over` is set. `listed`: between the two."""
    with connect(cluster) as http:
        found = http.get(path, params=params).json()
        for item in found["items"]:
            see("ADDED", item)
        listed()
        version = found["metadata"]["resourceVersion"]
        while not over.is_set():
            version = _watch(http, path, {**params, "resourceVersion": version}, see, over=over)


def _watch(
    http: httpx.Client, path: str, params: Json, see: Callable[[str, Json], None], *, over: threading.Event
) -> str:
    """News until it is quiet for a while; the version to go on from."""
    version = str(params["resourceVersion"])
    asked = {**params, "watch": "1", "allowWatchBookmarks": "true"}
    timeout = httpx.Timeout(ANSWER_SECONDS, read=QUIET_SECONDS)
    with suppress(httpx.HTTPError), http.stream("GET", path, params=asked, timeout=timeout) as reply:
        for line in reply.iter_lines():
            event = json.loads(line)
            assert event["type"] != "ERROR", f"{path}: {event['object']}"
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                see(event["type"], event["object"])
            if over.is_set():
                break
    return version

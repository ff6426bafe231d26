"""The network namespace that holds a cluster: a bridge for nodes and pods, a link to the host, routes both ways."""

import subprocess
from pathlib import Path

from devcluster.addresses import Instance

__all__ = ["enter", "make_network", "remove_network"]


def enter(instance: Instance) -> list[str]:
    """Prefix that runs a command inside. nsenter, not `ip netns exec`: the mount namespace must stay the host's."""
    return ["nsenter", f"--net=/run/netns/{instance.namespace}", "--"]


def make_network(instance: Instance, *, nodes: int) -> None:
    """Idempotent: what is there is kept."""
    if not Path(f"/run/netns/{instance.namespace}").exists():
        _ip("netns", "add", instance.namespace)
    inside = enter(instance)
    _ip("link", "set", "lo", "up", inside=inside)
    if not _exists(instance.bridge, inside=inside):
        _ip("link", "add", instance.bridge, "type", "bridge", inside=inside)
    for node in range(1, nodes + 1):
        _ip("addr", "replace", f"{instance.node_address(node)}/16", "dev", instance.bridge, inside=inside)
    _ip("link", "set", instance.bridge, "up", inside=inside)
    if not _exists(instance.host_link):
        _ip("link", "add", instance.host_link, "type", "veth", "peer", "name", instance.box_link)
        _ip("link", "set", instance.box_link, "netns", instance.namespace)
    _ip("addr", "replace", f"{instance.host_side}/30", "dev", instance.host_link)
    _ip("link", "set", instance.host_link, "up")
    _ip("addr", "replace", f"{instance.box_side}/30", "dev", instance.box_link, inside=inside)
    _ip("link", "set", instance.box_link, "up", inside=inside)
    for network in (instance.node_network, instance.service_network):
        _ip("route", "replace", network, "via", instance.box_side)
    # Without this, processes in the namespace cannot reach ClusterIPs.
    _ip("route", "replace", instance.service_network, "dev", instance.bridge, "src", instance.address, inside=inside)
    subprocess.run([*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True, capture_output=True)


def remove_network(instance: Instance) -> None:
    """Deleting the link takes the host's routes along."""
    if _exists(instance.host_link):
        _ip("link", "delete", instance.host_link)
    if Path(f"/run/netns/{instance.namespace}").exists():
        _ip("netns", "delete", instance.namespace)


def _ip(*arguments: str, inside: list[str] | None = None) -> None:
    done = subprocess.run([*(inside or []), "ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _exists(link: str, *, inside: list[str] | None = None) -> bool:
    return (
        subprocess.run([*(inside or []), "ip", "link", "show", link], capture_output=True, check=False).returncode == 0
    )

"""Two instances never share an address, a name or a directory."""

import ipaddress
from itertools import combinations
from pathlib import Path

import pytest

from devcluster.addresses import SLOTS, Instance

HOME = Path("/cache")


def instance(slot: int) -> Instance:
    return Instance(name=f"i{slot}", slot=slot, home=HOME)


def networks(one: Instance) -> list[ipaddress.IPv4Network]:
    return [
        ipaddress.IPv4Network(one.node_network),
        ipaddress.IPv4Network(one.service_network),
        ipaddress.IPv4Network(f"{one.host_side}/30", strict=False),
    ]


def test_no_two_networks_of_any_two_instances_overlap() -> None:
    every = [network for slot in range(SLOTS) for network in networks(instance(slot))]
    assert not any(a.overlaps(b) for a, b in combinations(every, 2))


@pytest.mark.parametrize("node", [1, 2], ids=["node 1", "node 2"])
def test_pods_of_a_node_lie_in_the_node_network_and_not_on_a_node_address(node: int) -> None:
    one = instance(0)
    first, last = (ipaddress.IPv4Address(address) for address in one.pod_range(node))
    assert first in ipaddress.IPv4Network(one.node_network)
    assert first < last
    assert not first <= ipaddress.IPv4Address(one.node_address(node)) <= last


def test_the_first_instance_has_the_documented_addresses() -> None:
    one = instance(0)
    assert (one.address, one.gateway_url, one.node_network) == ("10.77.0.1", "http://10.77.0.1:8000", "10.77.0.0/16")


def test_link_names_fit_the_kernel() -> None:
    longest = instance(SLOTS - 1)
    assert all(len(name) <= 15 for name in (longest.bridge, longest.host_link, longest.box_link))

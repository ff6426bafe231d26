"""Host names under which a fence is asked: those that listener and route have in common."""

from typing import Any

import pytest

from lora_operator.routing.listener import host_of


def listener(name: str, hostname: str = "", port: int = 80) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": "HTTP"} | ({"hostname": hostname} if hostname else {})


@pytest.mark.parametrize(
    ("listeners", "ref", "hostnames", "host"),
    [
        pytest.param([listener("web")], {}, ("fin.example.com",), "fin.example.com", id="any host: the declared one"),
        pytest.param([listener("web")], {}, (), "", id="any host, none declared: any will do"),
        pytest.param([listener("web", "fin.example.com")], {}, (), "fin.example.com", id="the listener's"),
        pytest.param([listener("web", "*.example.com")], {}, (), "fence.example.com", id="any under the listener's"),
        pytest.param([listener("web")], {}, ("*.example.com",), "fence.example.com", id="any under the declared one"),
        pytest.param(
            [listener("web", "*.example.com")], {}, ("fin.other.org", "fin.example.com"), "fin.example.com", id="the one that it takes"
        ),
        pytest.param(
            [listener("web", "fin.example.com")], {}, ("*.example.com",), "fin.example.com", id="the narrower is the listener's"
        ),
        pytest.param(
            [listener("web", "*.example.com")], {}, ("*.eu.example.com",), "fence.eu.example.com", id="the narrower of two wild ones"
        ),
        pytest.param(
            [listener("other", "other.org"), listener("web", "example.com")], {"sectionName": "web"}, (), "example.com",
            id="the section that the reference names",
        ),
        pytest.param(
            [listener("a", "a.org", 80), listener("b", "b.org", 81)], {"port": 81}, (), "b.org", id="the port that it names"
        ),
        pytest.param([listener("web", "a.org")], {}, ("notaa.org",), "", id="none in common"),
    ],
)  # fmt: skip
def test_a_host_that_both_have(
    listeners: list[dict[str, Any]], ref: dict[str, Any], hostnames: tuple[str, ...], host: str
) -> None:
    assert host_of({"name": "public", **ref}, {"spec": {"listeners": listeners}}, hostnames=hostnames) == host

"""Listeners of the Gateways that a route hangs on: where clients reach it, and under which host name. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_operator.kube.client import Json

__all__ = ["endpoints_of", "host_of"]

_USUAL_PORTS = {"http": 80, "https": 443}


def endpoints_of(ref: Mapping[str, Any], gateway: Json, *, hostnames: Sequence[str]) -> Iterable[str]:
    """URLs of the chat route through one parent; without host names its addresses are taken."""
    addresses = [str(a["value"]) for a in (gateway.get("status") or {}).get("addresses") or () if a.get("value")]
    for listener in _listeners(ref, gateway):
        scheme = "https" if listener.get("protocol") == "HTTPS" else "http"
        port = "" if listener["port"] == _USUAL_PORTS[scheme] else f":{listener['port']}"
        for host in hostnames or addresses:
            yield f"{scheme}://{host}{port}/v1/chat/completions"


def host_of(ref: Mapping[str, Any], gateway: Json, *, hostnames: Sequence[str]) -> str:
    """A host name under which a route of these host names answers through one parent; empty where any will do."""
    for listener in _listeners(ref, gateway):
        for hostname in hostnames or ("",):
            common = _common(str(listener.get("hostname") or ""), hostname)
            if common is not None:
                return common.replace("*", "fence", 1)
    return ""


def _listeners(ref: Mapping[str, Any], gateway: Json) -> list[Json]:
    """Those that the reference means."""
    return [
        listener
        for listener in gateway["spec"].get("listeners") or ()
        if ref.get("sectionName") in (None, listener["name"]) and ref.get("port") in (None, listener["port"])
    ]


def _common(one: str, other: str) -> str | None:
    """The narrower of two host names, empty ones being all of them; None where no host has both."""
    if not one or not other:
        return one or other
    narrow, wide = (other, one) if one.startswith("*.") and len(one) <= len(other) else (one, other)
    covered = narrow == wide or (wide.startswith("*.") and narrow.endswith(wide[1:]))
    return narrow if covered else None

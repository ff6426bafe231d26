"""Objects as a user sees them change: `kubectl get --watch`, with the time at which each change arrived."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from demo.kubectl import Kubectl

__all__ = ["watching"]

Json = dict[str, Any]


@contextmanager
def watching(kubectl: Kubectl, looks: Mapping[str, Callable[[Json], None]], *, namespace: str) -> Iterator[None]:
    """Calls a look (by what comes after `kubectl get`) with every object that arrives, until the block ends."""
    watches = [kubectl.start("get", *what.split(), "-n", namespace, "--watch", "-o", "json") for what in looks]
    for watch, look in zip(watches, looks.values(), strict=True):
        threading.Thread(target=_follow, args=(watch.stdout, look), daemon=True).start()
    try:
        yield
    finally:
        for watch in watches:
            watch.terminate()
            watch.wait()


def _follow(stream: Any, look: Callable[[Json], None]) -> None:
    """kubectl prints one JSON document after another."""
    decoder, text = json.JSONDecoder(), ""
    for line in stream:
        text += line
        if line.rstrip() == "}":
            found, end = decoder.raw_decode(text.lstrip())
            text = text.lstrip()[end:]
            look(found)

"""The pods' network namespaces: containerd makes them beside ours, `cni-<uuid>` on the host, and a killed cluster leaves them there.

Whose they are is told by the CNI's own record of each attachment: it carries the network's configuration, whose address book
(`ipam.dataDir`) lies in the directory of one instance, and the namespace it was attached to.
"""

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster.addresses import Instance

__all__ = ["Attachment", "attachments_of", "remove_pod_networks"]

RECORDS = Path("/var/lib/cni/results")
NAMESPACES = Path("/run/netns")


@dataclass(frozen=True)
class Attachment:
    """One pod on the instance's network. `namespaces` are names below /run/netns."""

    record: Path
    container: str
    namespaces: tuple[str, ...]


def remove_pod_networks(instance: Instance, *, records: Path = RECORDS) -> None:
    """Deletes the namespaces of the instance's pods and the records about them; those of another instance stay."""
    for found in attachments_of(instance, records=records):
        for name in found.namespaces:
            if (NAMESPACES / name).exists():
                done = subprocess.run(["ip", "netns", "delete", name], capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise OSError(f"ip netns delete {name}: {done.stderr.strip()}")
        # The loopback of the same sandbox has a record of its own, which names no instance.
        for record in (found.record, *records.glob(f"cni-loopback-{found.container}-*")):
            record.unlink(missing_ok=True)


def attachments_of(instance: Instance, *, records: Path = RECORDS) -> Iterator[Attachment]:
    """What the records say about the instance's pods. A record that is no record (half written, another version) is no one's."""
    for record in sorted(records.glob("*-eth0")):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            content: Mapping[str, Any] = json.loads(record.read_text(encoding="utf-8"))
            if _belongs(content, instance):
                yield Attachment(record, str(content["containerId"]), _namespaces(content))


def _belongs(content: Mapping[str, Any], instance: Instance) -> bool:
    network = json.loads(base64.b64decode(content["config"]))
    books = [
        Path(str(plugin["ipam"]["dataDir"])) for plugin in network["plugins"] if "dataDir" in plugin.get("ipam", {})
    ]
    return any(instance.directory in book.parents for book in books)


def _namespaces(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Only namespaces of containerd's naming: a wrong record must not take another one away."""
    names = (Path(str(one["sandbox"])).name for one in content["result"]["interfaces"] if one.get("sandbox"))
    return tuple(name for name in names if name.startswith("cni-"))

"""What the kubeconfig says: contexts, clusters and users of one file or several, as kubectl merges them. Reads files, nothing else.

explicit file ─► $KUBECONFIG (a list of files) ─► ~/.kube/config
of two entries with one name the first file's counts; so does the first current-context
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lora_client.errors import Invalid

__all__ = ["Context", "Entry", "Kubeconfig", "list_contexts", "read_kubeconfig"]

PARTS = {"contexts": "context", "clusters": "cluster", "users": "user"}


@dataclass(frozen=True)
class Context:
    """One entry of `contexts` in the kubeconfig. `namespace` is empty where the entry names none."""

    name: str
    cluster: str
    user: str
    namespace: str
    current: bool


@dataclass(frozen=True)
class Entry:
    """A cluster or user. Relative paths in it are relative to `file`'s folder."""

    name: str
    content: Mapping[str, Any]
    file: Path

    def path(self, key: str) -> Path | None:
        """The file that a field names; None where it names none."""
        text = self.content.get(key)
        return self.file.parent / Path(str(text)).expanduser() if text else None


@dataclass(frozen=True)
class Kubeconfig:
    """The merged files. `places` is where was looked, in words."""

    places: str
    current: str = ""
    contexts: Mapping[str, Entry] = field(default_factory=dict)
    clusters: Mapping[str, Entry] = field(default_factory=dict)
    users: Mapping[str, Entry] = field(default_factory=dict)

    def context(self, name: str) -> Context:
        """One of `contexts`."""
        content = self.contexts[name].content
        return Context(
            name=name,
            cluster=str(content.get("cluster", "")),
            user=str(content.get("user") or ""),
            namespace=str(content.get("namespace") or ""),
            current=name == self.current,
        )


def list_contexts(kubeconfig: str | Path | None = None) -> list[Context]:
    """Contexts of the kubeconfig in their order; empty when there is no kubeconfig.

    Raises:
        Invalid: a file is not a kubeconfig.
    """
    found = read_kubeconfig(kubeconfig)
    return [found.context(name) for name in found.contexts]


def read_kubeconfig(kubeconfig: str | Path | None = None) -> Kubeconfig:
    """All files, merged; empty where there are none.

    Raises:
        Invalid: a file is not a kubeconfig, or the explicit one is not there.
    """
    places = _places(kubeconfig)
    if kubeconfig is not None and not Path(places[0]).expanduser().is_file():
        raise Invalid(f"kubeconfig {places[0]}: there is no such file; check the path")
    current, merged = "", {part: dict[str, Entry]() for part in PARTS}
    for file in (Path(place).expanduser() for place in places):
        if not file.is_file():
            continue
        raw = _read(file)
        current = current or str(raw.get("current-context") or "")
        for part, member in PARTS.items():
            for one in _entries(raw, part, member, file):
                merged[part].setdefault(one.name, one)
    return Kubeconfig(os.pathsep.join(places), current, **merged)


def _places(kubeconfig: str | Path | None) -> list[str]:
    if kubeconfig is not None:
        return [str(kubeconfig)]
    listed = [place for place in os.environ.get("KUBECONFIG", "").split(os.pathsep) if place]
    return listed or [str(Path("~/.kube/config").expanduser())]


def _entries(raw: Mapping[str, Any], part: str, member: str, file: Path) -> list[Entry]:
    found = raw.get(part) or ()
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise Invalid(f"kubeconfig {file}: {part}: found {type(found).__name__}, expected a list of name and {member}")
    return [Entry(str(one.get("name", "")), one.get(member) or {}, file.absolute()) for one in found]


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

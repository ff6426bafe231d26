"""The operator's writes, as the API server's audit log has them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["AuditTail", "is_of_operator", "is_read", "is_write_of_operator", "pod_of", "told"]

Json = dict[str, Any]
ACCOUNT = "system:serviceaccount:lora-system:lora-operator"
WRITES = frozenset({"create", "update", "patch", "delete"})
READS = frozenset({"get", "list", "watch"})
POD_NAME = "authentication.kubernetes.io/pod-name"


class AuditTail:
    """`with AuditTail(...) as log:` what is written to it from now on. A log that is put aside for a new one is read to its end first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.open("rb")
        self._log.seek(0, os.SEEK_END)
        self._rest = b""

    def __enter__(self) -> "AuditTail":
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def lines(self) -> Iterator[Json]:
        """Whole lines since the last call."""
        self._rest += self._log.read()
        if self._path.exists() and self._path.stat().st_ino != os.fstat(self._log.fileno()).st_ino:
            self._rest += self._log.read()
            self._log.close()
            self._log = self._path.open("rb")
            self._rest += self._log.read()
        *whole, self._rest = self._rest.split(b"\n")
        return (json.loads(line) for line in whole if line)

    def writes(self) -> list[Json]:
        """The operator's among them."""
        return [line for line in self.lines() if is_write_of_operator(line)]


def is_of_operator(line: Json) -> bool:
    """A request with its ServiceAccount, however it was answered."""
    return bool(line.get("user", {}).get("username") == ACCOUNT)


def is_read(line: Json) -> bool:
    """Nothing but reads: what is not known to be one is taken for a write."""
    return line["verb"] in READS


def is_write_of_operator(line: Json) -> bool:
    """A write that was taken. Renewals of the Lease are none, and Events tell of writes."""
    reference = line.get("objectRef") or {}
    return (
        is_of_operator(line)
        and line["verb"] in WRITES
        and reference.get("resource") not in ("leases", "events")
        and int((line.get("responseStatus") or {}).get("code", 500)) < 300
    )


def pod_of(line: Json) -> str:
    """The pod whose token the request came with."""
    names = line["user"].get("extra", {}).get(POD_NAME) or [""]
    return str(names[0])


def told(line: Json) -> str:
    """The write in words."""
    reference = line["objectRef"]
    parts = [reference["resource"], reference.get("name", ""), reference.get("subresource", "")]
    return f"{line['verb']} {'/'.join(part for part in parts if part)}"

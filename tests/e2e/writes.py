"""The operator's writes as the API server's audit log has them, and kill -9 of the operator right after some of them."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from devcluster.cluster import Cluster, NotReady

__all__ = ["Killer", "writes_since"]

Json = dict[str, Any]
SYSTEM, NAME = "lora-system", "lora-operator"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:{NAME}"
WRITES = frozenset({"create", "update", "patch", "delete"})
POLL = 0.005  # seconds


def writes_since(cluster: Cluster, offset: int) -> list[Json]:
    """Successful writes of the operator since a size of the audit log, renewals of its Lease and Events left out."""
    with cluster.audit_log.open("rb") as log:
        log.seek(offset)
        return [line for line in map(json.loads, log.read().splitlines()) if _counts(line)]


def _counts(line: Json) -> bool:
    reference = line.get("objectRef") or {}
    return (
        line.get("user", {}).get("username") == ACCOUNT
        and line["verb"] in WRITES
        and reference.get("resource") not in ("leases", "events")
        and int((line.get("responseStatus") or {}).get("code", 500)) < 300
    )


class Killer:
    """`with Killer(cluster, gaps=…) as killer:` kills the operator each time that it has done the next number of writes.

    The pod is taken away too and the Lease emptied, so that the next one starts at once and not after a back-off.
    """

    def __init__(self, cluster: Cluster, *, gaps: Iterator[int]) -> None:
        self._cluster = cluster
        self._gaps = gaps
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.kills: list[str] = []  # the write after which

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        left = next(self._gaps, 0)
        with self._cluster.audit_log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            rest = b""
            while left and not self._over.is_set():
                rest += log.read()
                *lines, rest = rest.split(b"\n")
                for line in map(json.loads, filter(None, lines)):
                    left -= _counts(line)
                    if left == 0 and _counts(line):
                        self._kill(f"{line['verb']} {line['requestURI'].partition('?')[0]}")
                        left = next(self._gaps, 0)
                        log.seek(0, os.SEEK_END)
                        rest = b""
                        break
                time.sleep(POLL)

    def _kill(self, after: str) -> None:
        names = self._pods()
        for pid in _processes(lambda env: env.get("POD_NAME") in names and "KUBERNETES_SERVICE_HOST" in env):
            os.kill(pid, signal.SIGKILL)
        self.kills.append(after)
        empty = json.dumps({"spec": {"holderIdentity": ""}})
        for command in (
            ("patch", "lease", NAME, "-n", SYSTEM, "--type=merge", "-p", empty),
            (
                "delete",
                "pod",
                "-n",
                SYSTEM,
                *names,
                "--force",
                "--grace-period=0",
                "--wait=false",
                "--ignore-not-found",
            ),
        ):
            try:
                self._cluster.kubectl(*command)
            except NotReady:
                continue  # the pod is gone already

    def _pods(self) -> list[str]:
        label = "app.kubernetes.io/name=lora-operator"
        text = self._cluster.kubectl("get", "pods", "-n", SYSTEM, "-l", label, "-o", "name")
        return [line.partition("/")[2] for line in text.split()]


def _processes(matches: Callable[[dict[str, str]], bool]) -> Iterator[int]:
    """Pids by environment."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            raw = (directory / "environ").read_text(errors="replace")
        except OSError:
            continue
        env = dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)
        if matches(env):
            yield int(directory.name)

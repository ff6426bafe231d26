"""kubectl as a user would type it, with the answer parsed."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.tell import story_of

__all__ = ["Kubectl", "KubectlFailed", "NotReached"]


class KubectlFailed(RuntimeError):
    """kubectl said no; the message is its own last line."""


class NotReached(RuntimeError):
    """A state did not come in time; the message says what was seen last."""


class Kubectl:
    """kubectl against one cluster."""

    def __init__(self, *, binary: Path, kubeconfig: Path | None = None, context: str | None = None) -> None:
        self._command = [str(binary)]
        if kubeconfig is not None:
            self._command += ["--kubeconfig", str(kubeconfig)]
        if context is not None:
            self._command += ["--context", context]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs kubectl and returns what it printed."""
        done = subprocess.run([*self._command, *arguments], input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KubectlFailed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "kubectl failed")
        return done.stdout

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Starts kubectl and leaves it running, for `--watch`; the caller ends it."""
        return subprocess.Popen([*self._command, *arguments], stdout=subprocess.PIPE, text=True)

    def apply(self, manifest: Path | dict[str, Any]) -> str:
        """Server-side apply of a file or an object."""
        if isinstance(manifest, Path):
            return self("apply", "--server-side", "-f", str(manifest)).strip()
        return self("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest)).strip()

    def get(self, kind: str, name: str, *, namespace: str) -> dict[str, Any] | None:
        """The object, or None."""
        found = self("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return dict(json.loads(found)) if found.strip() else None

    def wait(
        self,
        kind: str,
        name: str,
        *,
        namespace: str,
        until: Callable[[dict[str, Any]], bool],
        seconds: float,
        seen: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Looks every half second, shows each look to `seen`, returns the object once `until` holds of it."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(kind, name, namespace=namespace) or {}
            seen(found)
            if found and until(found):
                return found
            if time.monotonic() > deadline:
                seen_last = story_of(found) if found else f"{kind} {name} is not there"
                raise NotReached(f"after {seconds:.0f} s it is not over: {seen_last or f'{kind} {name} has no status'}")
            time.sleep(0.5)

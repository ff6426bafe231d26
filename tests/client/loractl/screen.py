"""`loractl` on a pseudo-terminal of 80 columns, as a person sees it."""

import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 180  # seconds: an upper bound for a loaded machine, not a measurement


class Screen:
    """`loractl` on a pseudo-terminal of 80 columns."""

    def __init__(self, *arguments: str, kubeconfig: Path) -> None:
        leader, follower = pty.openpty()
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "COLUMNS": "80",
            "LINES": "24",
            "TERM": "xterm-256color",
        }
        command = [sys.executable, "-m", "loractl", *arguments]
        self.process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
        os.close(follower)
        self._leader, self._seen = leader, ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._seen += os.read(self._leader, 4096).decode(errors="replace")
            except OSError:
                return  # the other end is closed

    @property
    def raw(self) -> str:
        """All that was written, with its escape sequences."""
        return self._seen

    @property
    def text(self) -> str:
        """The same without them."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._seen).replace("\r", "")

    def until(self, words: str) -> str:
        """Waits for words; all that was seen until then."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.text:
            assert time.monotonic() < deadline, f"{words!r} never came:\n{self.text}"
            time.sleep(0.05)
        return self.text

    def type(self, text: str) -> None:
        """As the person at the keyboard."""
        os.write(self._leader, text.encode())

    def close(self) -> None:
        """Whatever became of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def end(self) -> int:
        """Waits for the end; the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._leader)
        return code


Open = Callable[..., Screen]

"""Peak anonymous memory of this process, sampled: the kernel keeps no such record, and file pages are the page cache's business."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["PeakMemory"]

INTERVAL_SECONDS = 0.05
_STATUS = Path("/proc/self/status")


def _anonymous_bytes() -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


class PeakMemory:
    """`with PeakMemory() as memory: …; memory.peak`."""

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, _anonymous_bytes())
            if self._done.wait(INTERVAL_SECONDS):
                return

"""One run of a command on a terminal of 80 columns: when its first words came, when it ended, what processor time it took."""

import os
import pty
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Run", "run"]


@dataclass(frozen=True)
class Run:
    """Seconds. The processor's own are what a free machine would take at least; on a busy one the others only add to them."""

    first: float
    first_processor: float
    whole: float
    processor: float


def run(arguments: Sequence[str], *, environment: Mapping[str, str]) -> Run:
    """Runs `loractl`; a command that fails ends the benchmark, because its time means nothing."""
    leader, follower = pty.openpty()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "loractl", *arguments],
        stdin=follower, stdout=follower, stderr=follower, env=dict(environment),
    )  # fmt: skip
    os.close(follower)
    first, first_processor, said = 0.0, 0.0, b""
    while True:
        try:
            chunk = os.read(leader, 2**16)
        except OSError:  # the other end is closed
            break
        if not said:
            first, first_processor = time.monotonic() - started, _used(process.pid)
        said += chunk
    code = process.wait()
    whole = time.monotonic() - started
    os.close(leader)
    if code:
        raise SystemExit(f"loractl {' '.join(arguments)} ended with {code}: {said.decode(errors='replace')[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(first=first, first_processor=first_processor, whole=whole, processor=used)


def _used(pid: int) -> float:
    """What a process has used of the processor so far: fields 14 and 15 of proc(5), counted behind the command's name."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

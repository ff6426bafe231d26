"""One run of a command: wall time, and the peak of its anonymous memory as the kernel counts it."""

import hashlib
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Run", "measure", "sha256_speed", "with_bytecode"]

INTERVAL_SECONDS = 0.02
HASHED = 512 * 2**20


def sha256_speed() -> float:
    """Bytes that one core hashes in a second of its own time, from its cache, one file at a time; two take less (decision 0048)."""
    state, block = hashlib.sha256(), bytes(2**18)
    started = time.process_time()
    for _ in range(HASHED // len(block)):
        state.update(block)
    return HASHED / (time.process_time() - started)


@dataclass(frozen=True, kw_only=True)
class Run:
    """`peak_anonymous` is sampled (RssAnon), `peak_resident` the kernel's own high-water mark (VmHWM), both in bytes."""

    seconds: float
    processor_seconds: float
    """User and system time: what a busy machine does not change much."""
    peak_anonymous: int
    peak_resident: int


def _fields(pid: int) -> dict[str, int]:
    """Bytes by field of /proc/<pid>/status; empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    lines = (line.split() for line in text.splitlines() if line.startswith(("RssAnon:", "VmHWM:")))
    return {name.rstrip(":"): int(value) * 1024 for name, value, *_ in lines}


def _processor_seconds() -> float:
    """Of all ended children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def with_bytecode(folder: Path) -> dict[str, str]:
    """This process's environment, but compiled Python is kept in `folder`, as an installed package has it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder)}


def measure(command: Sequence[str], *, environment: Mapping[str, str]) -> Run:
    """Runs it to its end; a failure ends the benchmark with what it said."""
    started, used = time.perf_counter(), _processor_seconds()
    anonymous = resident = 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        while process.poll() is None:
            found = _fields(process.pid)
            anonymous = max(anonymous, found.get("RssAnon", 0))
            resident = max(resident, found.get("VmHWM", 0))
            time.sleep(INTERVAL_SECONDS)
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read()}")
    spent = _processor_seconds() - used
    return Run(seconds=seconds, processor_seconds=spent, peak_anonymous=anonymous, peak_resident=resident)

"""Processes that outlive the command that started them, known by pid and start time, so that a reused pid is never touched."""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Processes"]

CLOCK_TICKS_FIELD = 19  # starttime, counted after the command's closing parenthesis in /proc/PID/stat


@dataclass(frozen=True)
class _Recorded:
    pid: int
    started: int  # clock ticks since boot


class Processes:
    """The background processes of one instance; one record file and one log file each."""

    def __init__(self, directory: Path) -> None:
        self._records = directory / "processes"
        self._logs = directory / "logs"

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self._logs / f"{name}.log"

    def names(self) -> list[str]:
        """Every process ever recorded and not stopped since."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def alive(self, name: str) -> bool:
        """Whether the recorded process is still that process."""
        recorded = self._read(name)
        return recorded is not None and _start_time(recorded.pid) == recorded.started

    def pid(self, name: str) -> int | None:
        """Its pid, when alive."""
        recorded = self._read(name)
        return recorded.pid if recorded is not None and self.alive(name) else None

    def start(self, name: str, command: Sequence[str], *, cwd: Path | None = None) -> None:
        """Starts it in a session of its own unless it runs already."""
        if self.alive(name):
            return
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        if cwd is not None:
            command = ["env", f"--chdir={cwd}", *command]
        # posix_spawn and not Popen: the process is meant to outlive us, so there is nothing to wait for and to warn about.
        with self.log(name).open("ab") as log, Path(os.devnull).open("rb") as nothing:
            files = [
                (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                *((os.POSIX_SPAWN_DUP2, log.fileno(), to) for to in (1, 2)),
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _handed_down()),
            ]
            pid = os.posix_spawnp(command[0], list(command), _environment(), file_actions=files, setsid=True)
        recorded = _Recorded(pid=pid, started=_start_time(pid) or 0)
        (self._records / f"{name}.json").write_text(json.dumps(asdict(recorded)))

    def stop(self, name: str, *, grace: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds; forgets the record."""
        for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            pid = self.pid(name)
            if pid is None:
                break
            os.kill(pid, number)
            deadline = time.monotonic() + wait
            while self.alive(name) and time.monotonic() < deadline:
                time.sleep(0.05)
        (self._records / f"{name}.json").unlink(missing_ok=True)

    def last_words(self, name: str) -> str:
        """The last line of its log that is not empty."""
        log = self.log(name)
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
        return lines[-1][-400:] if lines else "no output"

    def _read(self, name: str) -> _Recorded | None:
        try:
            return _Recorded(**json.loads((self._records / f"{name}.json").read_text()))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None


def _handed_down() -> Iterator[int]:
    """Descriptors that a shell gave us, a lock's for instance: what outlives us must not hold them."""
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):  # that of the listing itself is closed by now
            if descriptor > 2 and os.get_inheritable(descriptor):
                yield descriptor


def _environment() -> dict[str, str]:
    """Ours without KUBECONFIG: a part must not talk to the cluster that the caller's shell points to."""
    return {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else int(rest[CLOCK_TICKS_FIELD - 1])

"""A process is known by pid and start time: it is found again by another command, and a reused pid is never touched."""

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from devcluster.processes import Processes


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


def test_a_started_process_is_found_by_the_next_command(processes: Processes, tmp_path: Path) -> None:
    processes.start("sleeper", ["sleep", "60"])
    try:
        assert Processes(tmp_path).alive("sleeper")
        assert processes.names() == ["sleeper"]
    finally:
        processes.stop("sleeper")
    assert not processes.alive("sleeper")
    assert processes.names() == []


def test_starting_twice_keeps_the_first(processes: Processes) -> None:
    processes.start("sleeper", ["sleep", "60"])
    pid = processes.pid("sleeper")
    processes.start("sleeper", ["sleep", "60"])
    try:
        assert processes.pid("sleeper") == pid
    finally:
        processes.stop("sleeper")


def test_a_lock_that_a_shell_handed_down_is_not_kept_by_what_was_started(processes: Processes, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock, (tmp_path / "lock").open() as another:
        os.set_inheritable(lock.fileno(), True)
        fcntl.flock(lock, fcntl.LOCK_EX)
        processes.start("sleeper", ["sleep", "60"])
        lock.close()
        try:
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            processes.stop("sleeper")


def test_a_reused_pid_is_not_ours(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "processes").mkdir()
    record = {"pid": os.getpid(), "started": 1}
    (tmp_path / "processes" / "impostor.json").write_text(json.dumps(record))
    assert not processes.alive("impostor")
    processes.stop("impostor")  # would end this very test run if it believed the record


def test_a_process_that_ignores_sigterm_is_killed(processes: Processes) -> None:
    processes.start("stubborn", ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    time.sleep(0.3)  # let the shell set its trap
    processes.stop("stubborn", grace=0.5)
    assert not processes.alive("stubborn")


def test_last_words_are_the_last_line_of_the_log(processes: Processes) -> None:
    processes.start("talker", ["sh", "-c", "echo first; echo no space left; echo"])
    while processes.alive("talker"):
        time.sleep(0.02)
    assert processes.last_words("talker") == "no space left"


@pytest.mark.parametrize(
    "content", ["", "{", '{"pid": 1}'], ids=["an empty record", "half a record", "a record without start time"]
)
def test_a_damaged_record_counts_as_stopped(processes: Processes, tmp_path: Path, content: str) -> None:
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "broken.json").write_text(content)
    assert not processes.alive("broken")

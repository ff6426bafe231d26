"""`lora-job` as a process of its own: torch never enters the caller's process, and a killed merge leaves nothing behind.

Everything the process prints is a log line; its exit code and its report are the result.
"""

import logging
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import IO

__all__ = ["Ended", "run_job"]

LOGGER = logging.getLogger("lora_integration_tools")


@dataclass(frozen=True)
class Ended:
    """How a command ended: 0 done, 2 bad input, 3 a quality gate failed, 1 infrastructure. `sentence` is its last word."""

    code: int
    sentence: str


def run_job(*arguments: str) -> Ended:
    """Runs `lora-job ARGUMENTS` to its end."""
    command = [sys.executable, "-m", "lora_job", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stdout is not None  # noqa: S101 (PIPE)
    assert process.stderr is not None  # noqa: S101 (PIPE)
    said: list[str] = []
    reading = threading.Thread(target=_log, args=(process.stderr, said))
    reading.start()
    try:
        _log(process.stdout, [])
        code = process.wait()
    except BaseException:
        process.terminate()  # lora-job cleans up on SIGTERM
        process.wait()
        raise
    finally:
        reading.join()
    process.stdout.close()
    process.stderr.close()
    last = next((line for line in reversed(said) if line.startswith("lora-job: ")), said[-1] if said else "")
    return Ended(code, last.removeprefix("lora-job: "))


def _log(stream: IO[str], said: list[str]) -> None:
    for line in stream:
        said.append(line.rstrip())
        LOGGER.info("%s", line.rstrip())

"""Running `lora-job` on this machine: this process becomes it, so that signals, terminal and exit code are its own."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_client.errors import ClientError

__all__ = ["NotInstalledHere", "become_lora_job", "find_lora_job"]


class NotInstalledHere(ClientError):
    """This machine has only the client."""


def find_lora_job(executable: str = sys.executable) -> str:
    """The program beside our own interpreter, else the one of PATH.

    Raises:
        NotInstalledHere: there is none.
    """
    beside = Path(executable).with_name("lora-job")
    found = str(beside) if beside.is_file() else shutil.which("lora-job")
    if not found:
        raise NotInstalledHere(
            "lora-job is not installed here; install it with: pip install 'lora-operator[job]', "
            "or run it on the cluster with: loractl workflow"
        )
    return found


def become_lora_job(verb: str, arguments: Sequence[str]) -> None:
    """Does not return."""
    program = find_lora_job()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, [program, verb, *arguments])  # noqa: S606 (our own program, no shell)

"""Removal of what the survey found unneeded: renamed aside first, so that no reader ever meets half a model under its own name."""

import fcntl
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from lora_job.prune.survey import LEFTOVER, Entry, Kind

__all__ = ["remove"]


def remove(entries: Sequence[Entry], *, failed: Callable[[Entry, OSError], None]) -> list[Entry]:
    """Removes every entry that nothing keeps; returns those that are gone now. Empty parents go with them.

    What cannot be removed is told to `failed` and stops nothing else.
    """
    gone = []
    # What an interrupted removal left holds the name that the next one moves things to: it goes first.
    for entry in sorted(entries, key=lambda entry: entry.kind is not Kind.LEFTOVER):
        try:
            if not entry.keep and _removed(entry):
                gone.append(entry)
        except OSError as error:
            failed(entry, error)
    for parent in {entry.path.parent for entry in gone if entry.kind is not Kind.SOURCE}:
        _remove_if_empty(parent)
    return gone


def _removed(entry: Entry) -> bool:
    """A partial directory is locked while it goes: a merge that wants it waits for its next attempt."""
    try:
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # published or removed since the survey
    try:
        if entry.kind is Kind.PARTIAL:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino != entry.path.stat().st_ino:
            return False
        aside = entry.path
        if not LEFTOVER.match(entry.path.name):
            aside = entry.path.with_name(f".{entry.path.name.lstrip('.')}.pruning")
            entry.path.rename(aside)
        shutil.rmtree(aside)
    except (BlockingIOError, FileNotFoundError):
        return False  # somebody took it between survey and removal
    finally:
        os.close(descriptor)
    return True


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return  # something of somebody is in it

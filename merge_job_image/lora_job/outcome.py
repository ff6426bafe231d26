"""How a command of `lora-job` ends: exit code, one sentence for people, one JSON message for the operator.

Commands raise `Refused`, `GateFailed` or `Infrastructure`, or return `Done`; nothing below the command line calls exit.
The termination message is written at the very end, so that it never speaks of a success that did not happen.
"""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

from lora_job.reasons import Reason

__all__ = [
    "MESSAGE_LIMIT",
    "Done",
    "Ended",
    "GateFailed",
    "Infrastructure",
    "Refused",
    "Terminated",
    "one_line",
    "raise_on_sigterm",
    "termination_message",
    "write_termination_message",
]

MESSAGE_LIMIT = 3_500
"""Bytes. Kubernetes cuts at 4096 and the message must stay JSON."""
SENTENCE_LIMIT = 1_000
"""Characters of a sentence, whatever a stranger's file calls its tensors."""
_EMPTY: Mapping[str, Any] = MappingProxyType({})


def one_line(text: str) -> str:
    """A sentence that is safe to print: no line break, no control or direction character, and not endless.

    It is cut in the middle, because its start says what is wrong and its end what to do.
    """
    words = " ".join(text.split())
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in words)
    half = SENTENCE_LIMIT // 2
    return shown if len(shown) <= SENTENCE_LIMIT else f"{shown[:half]} … {shown[-half:]}"


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that did what was asked. `extra` holds the members that only this command's message has."""

    message: str
    artifact: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


class Ended(Exception):
    """A command that did not. `extra` and `figures` go into the termination message as they are."""

    exit_code = 1
    outcome = "Failed"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        artifact: Mapping[str, Any] = _EMPTY,
        figures: Mapping[str, Any] = _EMPTY,
        extra: Mapping[str, Any] = _EMPTY,
    ) -> None:
        sentence = one_line(message)
        super().__init__(sentence)
        self.reason = str(reason)
        self.message = sentence
        self.artifact = artifact
        self.figures = figures
        self.extra = extra


class Refused(Ended):
    """Bad input: the same input will be refused again."""

    exit_code = 2
    outcome = "Refused"


class GateFailed(Ended):
    """The work was done and its result is not good enough; a report exists."""

    exit_code = 3
    outcome = "GateFailed"


class Infrastructure(Ended):
    """Nothing is wrong with the input: worth another attempt."""


class Terminated(Ended):
    """SIGTERM arrived; whoever held something has cleaned up while this passed through."""

    exit_code = 143
    outcome = "Terminated"


def raise_on_sigterm() -> None:
    """From now on SIGTERM is an exception in the main thread, so that `finally` blocks run."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # A second SIGTERM must not interrupt the cleaning up that the first one started.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated(Reason.TERMINATED, "stopped by SIGTERM; nothing was published")

    signal.signal(signal.SIGTERM, stop)


def termination_message(end: Done | Ended) -> dict[str, Any]:
    """The JSON of docs/job-contract.md."""
    done = isinstance(end, Done)
    return {
        "schemaVersion": 1,
        "outcome": "Succeeded" if isinstance(end, Done) else end.outcome,
        "reason": "Succeeded" if done else getattr(end, "reason", ""),
        "message": end.message,
        "artifact": dict(end.artifact),
        "figures": dict(end.figures),
        **end.extra,
    }


def _size(message: Mapping[str, Any]) -> int:
    return len(json.dumps(message, ensure_ascii=False).encode())


def _fitted(message: dict[str, Any]) -> dict[str, Any]:
    """Lists are cut first, the sentence last; what a command already cut itself stays untouched."""
    if _size(message) <= MESSAGE_LIMIT:
        return message
    for name in ("warnings", "sources"):
        while isinstance(message.get(name), list) and message[name] and _size(message) > MESSAGE_LIMIT:
            message = message | {name: message[name][:-1], "truncated": True}
    excess = _size(message) - MESSAGE_LIMIT
    if excess > 0:
        text = message["message"].encode()
        kept = text[: max(0, len(text) - excess - 16)].decode(errors="ignore")
        message = message | {"message": f"{kept}…", "truncated": True}
    return message


def write_termination_message(end: Done | Ended) -> None:
    """Where LORA_TERMINATION_LOG says; nowhere outside a cluster."""
    target = os.environ.get("LORA_TERMINATION_LOG")
    if target:
        # Kubernetes mounts this file: it is written in place, a rename over it is not possible.
        Path(target).write_text(json.dumps(_fitted(termination_message(end)), ensure_ascii=False), encoding="utf-8")

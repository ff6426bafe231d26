"""A command in a running container, its input streamed to it: the exec protocol of the API server over a websocket.

Each frame begins with the number of its channel: 0 stdin, 1 stdout, 2 stderr, 3 the end as a Status. Version 5 of the
protocol can close stdin (255, channel); with version 4 a command must know by itself where its input ends.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from lora_client.api import Api, path_of
from lora_client.errors import Refused, Unavailable
from lora_client.names import POD

__all__ = ["CommandFailed", "execute"]

STDIN, STDOUT, STDERR, END, CLOSE = 0, 1, 2, 3, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
LAST_WORDS = 1000


class CommandFailed(Refused):
    """`words` are the command's own last ones."""

    def __init__(self, command: str, words: str) -> None:
        super().__init__(f"{command} in the pod failed: {words}")
        self.words = words


@dataclass
class _Answer:
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    end: dict[str, Any] | None = None


async def execute(
    api: Api, *, namespace: str, pod: str, container: str, command: list[str], stdin: AsyncIterator[bytes] | None = None
) -> bytes:
    """What the command wrote to stdout.

    Raises:
        CommandFailed: with its last words.
        Unavailable: the connection broke before it ended.
    """
    query = [("container", container), ("stdout", "true"), ("stderr", "true")]
    query += [("stdin", "true")] if stdin is not None else []
    query += [("command", word) for word in command]
    path = f"{path_of(POD, namespace=namespace, name=pod)}/exec"
    async with api.socket(path, query=query, protocols=PROTOCOLS) as socket:
        answer = _Answer()
        reading = asyncio.create_task(_read(socket, answer))
        feeding = asyncio.create_task(_feed(socket, stdin, answer))
        try:
            # A command that ends early reads no more, and a frame on its way to it would wait for ever.
            await asyncio.wait({reading, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
            await reading
        finally:
            await _stopped(feeding, reading)
    return _result(answer, command=command)


async def _feed(socket: Any, stdin: AsyncIterator[bytes] | None, answer: _Answer) -> None:
    """Sends the input and closes it. A command that complains before its input has ended needs no more of it."""
    if stdin is None:
        return
    with contextlib.suppress(ConnectionError):  # the command ended between two frames: the reader knows how
        async for chunk in stdin:
            if answer.stderr:
                break
            await socket.send_bytes(bytes([STDIN]) + chunk)
        if socket.protocol == PROTOCOLS[0]:
            await socket.send_bytes(bytes([CLOSE, STDIN]))


async def _stopped(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _read(socket: Any, answer: _Answer) -> None:
    import aiohttp  # noqa: PLC0415 - as in connection.py

    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == STDOUT:
            answer.stdout += data
        elif channel == STDERR:
            answer.stderr += data
        elif channel == END:
            answer.end = json.loads(data)
            return


def _result(answer: _Answer, *, command: list[str]) -> bytes:
    if answer.end is None:
        raise Unavailable(f"the connection to the pod broke while {command[0]} ran; try again")
    if answer.end.get("status") == "Success":
        return bytes(answer.stdout)
    words = bytes(answer.stderr or answer.stdout).decode(errors="replace").strip()[-LAST_WORDS:]
    raise CommandFailed(command[0], words or str(answer.end.get("message") or "no words"))

"""A directory of this machine, copied into a claim: what arrived is proven by digest before it gets its name.

    local files ─► digest ─► is it there already? ─► tar stream ─► <target>.partial ─► digest again ─► rename to <target>

The target is named by content, `sources/<16 hex digits of the digest>/<directory's own name>`, so the same directory is
copied once, and keeps its own name because adapters name their base by it.
"""

import asyncio
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from lora_client.api import Api
from lora_client.claim_pod import ROOT, ClaimPod, claim_pod
from lora_client.errors import Invalid, Unavailable
from lora_client.job_image import find_job_image
from lora_client.logs import Progress
from lora_client.sources import ClaimPath

__all__ = ["Copied", "copy_directory"]

CHUNK = 2**18
BLOCK = tarfile.BLOCKSIZE
TELL_SECONDS = 0.5

# Runs in the pod, where lora_job is installed. Nothing exists under the target's name before its digest was right. It speaks
# as soon as it fails, and then reads its input to the end: a command that leaves input behind can hang the whole exec.
RECEIVER = """
import pathlib, shutil, sys, tarfile
from lora_job.digest import directory_digest
target = pathlib.Path(sys.argv[1]); partial = target.with_name(target.name + ".partial")
failed = ""
try:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            path = partial / member.name
            if not member.isfile() or ".." in path.parts or not path.is_relative_to(partial):
                raise ValueError(f"{member.name}: not a file of this directory")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(archive.extractfile(member), file, 2**20)
            path.chmod(0o644)
    found = directory_digest(partial)
    if found == sys.argv[2]:
        partial.rename(target)
    else:
        failed = f"expected digest {sys.argv[2]}, found {found}"
except Exception as error:
    failed = f"{type(error).__name__}: {error}"
shutil.rmtree(partial, ignore_errors=True)
print(failed, file=sys.stderr, end="", flush=True)
while sys.stdin.buffer.read(2**20):
    pass
sys.exit(1 if failed else 0)
"""
PRESENT = "import pathlib, sys; print('yes' if pathlib.Path(sys.argv[1]).is_dir() else 'no')"


@dataclass(frozen=True)
class Copied:
    """Where a directory lies now."""

    place: ClaimPath
    digest: str
    bytes: int
    reused: bool
    """It was there already."""


@dataclass(frozen=True)
class _File:
    path: str
    location: str
    size: int


async def copy_directory(
    api: Api,
    directory: Path,
    *,
    store: ClaimPath,
    namespace: str,
    image: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Copied:
    """Copies a model or adapter directory below `sources/` of the store.

    Args:
        image: the job image; None finds it (job_image.py).
        progress: called about twice a second.

    Raises:
        Invalid: the directory holds nothing, a link that leaves it, or a file that cannot be read.
        TimedOut: the copying pod did not start.
        Refused: the pod could not write, or the digest was wrong.
    """
    files, digest = await asyncio.to_thread(_measure, directory)
    total = sum(file.size for file in files)
    place = ClaimPath(store.claim, f"{store.path}/sources/{digest.removeprefix('sha256:')[:16]}/{directory.name}")
    chosen = await find_job_image(api, namespace=namespace, given=image)
    async with claim_pod(api, namespace=namespace, claim=store.claim, image=chosen, read_only=False) as pod:
        target = f"{ROOT}/{place.path}"
        if (await pod.run("python", "-c", PRESENT, target)).strip() == b"yes":
            return Copied(place, digest, total, reused=True)
        await _send(pod, files, target=target, digest=digest, total=total, name=directory.name, progress=progress)
    return Copied(place, digest, total, reused=False)


async def _send(
    pod: ClaimPod,
    files: list[_File],
    *,
    target: str,
    digest: str,
    total: int,
    name: str,
    progress: Callable[[Progress], None],
) -> None:
    stream = _with_progress(files, total=total, name=name, progress=progress)
    await pod.run("python", "-c", RECEIVER, target, digest, stdin=stream)


def _measure(directory: Path) -> tuple[list[_File], str]:
    """What counts of the directory, and its digest, by the rules of the job engine (links, ignored files)."""
    from lora_job.digest import combine, hash_files  # noqa: PLC0415 - only whoever copies needs the job package
    from lora_job.files import list_files  # noqa: PLC0415 - as above
    from lora_job.outcome import Ended  # noqa: PLC0415 - as above

    try:
        facts = list_files(directory)
        digest = combine(hash_files(facts))
    except Ended as error:
        raise Invalid(error.message) from error
    if not facts:
        raise Invalid(f"{directory}: found no file, expected a model or adapter directory; check the path")
    return [_File(fact.path, fact.location, fact.size) for fact in facts], digest


async def _with_progress(
    files: list[_File], *, total: int, name: str, progress: Callable[[Progress], None]
) -> AsyncIterator[bytes]:
    started, done, due = time.monotonic(), 0, 0.0
    chunks = _tar(files)
    while True:
        chunk = await asyncio.to_thread(next, chunks, None)
        if chunk is None:
            break
        yield chunk
        done = min(total, done + len(chunk))
        now = time.monotonic()
        if now >= due:
            due = now + TELL_SECONDS
            progress(_told(name, done=done, total=total, elapsed=now - started))
    progress(_told(name, done=total, total=total, elapsed=time.monotonic() - started))


def _told(name: str, *, done: int, total: int, elapsed: float) -> Progress:
    left = round(elapsed / done * (total - done), 1) if done else None
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Progress(time=stamp, stage=f"copy {name}", done=done, total=total, unit="B", eta_seconds=left)


def _tar(files: list[_File]) -> Iterator[bytes]:
    """A tar stream of regular files, mode 0644, without owner and time: two copies of one directory are the same bytes."""
    for file in files:
        info = tarfile.TarInfo(file.path)
        info.size, info.mode = file.size, 0o644
        yield info.tobuf(tarfile.PAX_FORMAT)
        with Path(file.location).open("rb") as source:
            yield from _exactly(source, file)
        yield b"\0" * (-file.size % BLOCK)
    yield b"\0" * (2 * BLOCK)


def _exactly(source: BinaryIO, file: _File) -> Iterator[bytes]:
    left = file.size
    while left:
        chunk = source.read(min(CHUNK, left))
        if not chunk:
            raise Unavailable(
                f"{file.location}: became shorter while it was copied; stop whatever writes there and try again"
            )
        left -= len(chunk)
        yield chunk

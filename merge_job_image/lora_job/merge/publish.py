"""The output directory: written under a hidden name beside its own, resumed after a crash, published by one rename.

    <parent>/.<name>.partial/   shards, state.json, sidecars, merge.json   ──fsync──rename──►   <parent>/<name>/

The partial directory itself is the lock (flock on its descriptor), so that nothing is left behind that could block the next run.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from lora_job.merge.figures import StepFigures
from lora_job.outcome import Infrastructure, Refused
from lora_job.reasons import Reason

__all__ = ["Partial", "check_separate", "is_begun", "open_partial", "sync", "write_file"]

STATE = "state.json"
Build = Callable[[], str]


def check_separate(output: Path, *, sources: Sequence[Path]) -> None:
    """Refuses an output that is a source or lies inside one, whatever it is called (device and inode decide)."""
    identities = {(found.st_dev, found.st_ino): source for source in sources for found in [source.stat()]}
    place = output.absolute()
    for directory in (place, *place.parents):
        try:
            found = directory.stat()
        except OSError:
            continue
        source = identities.get((found.st_dev, found.st_ino))
        if source is not None:
            raise Refused(
                Reason.OUTPUT_INSIDE_SOURCE, f"{output}: is or lies inside the source {source}; choose another place"
            )


def write_file(path: Path, data: bytes) -> None:
    """A whole file, on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Waits until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Partial:
    """An output that is not published yet; held by one process."""

    def __init__(self, path: Path, *, final: Path, build: Build) -> None:
        self.path = path
        self._final = final
        self._build = build
        self._figures: dict[str, dict[str, StepFigures]] = {}
        self._published = False

    def resume(self) -> Mapping[str, Mapping[str, StepFigures]]:
        """Shards an earlier run of the same build finished; everything of another build is removed."""
        try:
            state = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            if state["build"] == self._build():
                self._figures = {
                    file: {name: StepFigures(**values) for name, values in found.items()}
                    for file, found in state["shards"].items()
                    if (self.path / file).is_file()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._figures = {}
        # What is not finished would only take room away from the attempt that starts now.
        self._clear(keep={STATE, *self._figures} if self._figures else set())
        return dict(self._figures)

    @property
    def holds_finished(self) -> bool:
        """Whether another attempt could save work."""
        return bool(self._figures)

    def finished(self, file: str, figures: Mapping[str, StepFigures]) -> None:
        """Remembers a written shard, by a rename, so that the state is never half written."""
        self._figures[file] = dict(figures)
        state = {
            "build": self._build(),
            "shards": {
                name: {tensor: asdict(values) for tensor, values in found.items()}
                for name, found in self._figures.items()
            },
        }
        fresh = self.path / f"{STATE}.new"
        write_file(fresh, json.dumps(state).encode())
        fresh.replace(self.path / STATE)

    def _clear(self, *, keep: Collection[str]) -> None:
        for entry in self.path.iterdir():
            if entry.name in keep:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def publish(self) -> None:
        """The one rename after which the output exists."""
        (self.path / STATE).unlink(missing_ok=True)
        self._figures = {}  # without its state nobody can go on with it
        self.path.chmod(0o755)
        sync(self.path)
        try:
            if self._final.exists():
                self._final.rmdir()  # an empty directory is as good as none
            self.path.rename(self._final)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise Infrastructure(
                    Reason.LOCKED, f"{self._final}: somebody else published there meanwhile; run again"
                ) from None
            raise
        self._published = True
        sync(self._final.parent)

    def abandon(self) -> None:
        """Removes everything: what a refusal or SIGTERM leaves behind is nothing. Once published the name is free for others."""
        if self._published:
            return
        shutil.rmtree(self.path, ignore_errors=True)


def _partial_of(final: Path) -> Path:
    return final.parent / f".{final.name}.partial"


def is_begun(final: Path) -> bool:
    """Whether an output, or the beginning of one, is there."""
    return final.exists() or _partial_of(final).exists()


def _locked(path: Path) -> int:
    """A descriptor of the directory with an exclusive lock on it."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # the other writer published or gave up between our mkdir and this
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Infrastructure(
                Reason.LOCKED, f"{path}: another merge is writing this output; wait for it, or stop it"
            ) from None
        held = os.fstat(descriptor)
        try:
            there = path.stat()
        except FileNotFoundError:
            there = None
        if there is not None and (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino):
            return descriptor
        # The other writer published between our mkdir and our lock: this name is free again.
        os.close(descriptor)


@contextmanager
def open_partial(final: Path, *, build: Build) -> Iterator[Partial]:
    """The partial directory of an output, locked until the end of the block. `build` is asked when it is needed first."""
    path = _partial_of(final)
    try:
        descriptor = _locked(path)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise Infrastructure(
            Reason.NOT_WRITABLE, f"{error.filename}: not writable by user {os.geteuid()}; give the volume to that user"
        ) from None
    try:
        yield Partial(path, final=final, build=build)
    finally:
        os.close(descriptor)

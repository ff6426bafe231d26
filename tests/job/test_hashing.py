"""sha256 of several files at once: it is hashlib's, whoever hashes and in whatever pieces, and two go on together wherever two can."""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_job import hashing
from lora_job.hashing import BACKLOG, PIECE, HashedFile, Hasher
from lora_job.kernels import sha256
from lora_job.kernels.sha256 import BLOCK, TwoAtATime
from lora_job.outcome import Infrastructure, Refused, Terminated

ENGINES: dict[str, Callable[[], Any]] = {"two at a time": TwoAtATime, "hashlib": hashing._Plain}
A_MOMENT = 0.1
"""What must not happen would have happened by then."""
# Ends of every kind: nothing, room for the padding or none, whole blocks, whole pieces and a little more or less.
SIZES = [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 4097, 2**17 - 1, 2**17 + 1, PIECE, PIECE + 64, 2 * PIECE + 17]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of them is what a hasher finds."""
    found = ENGINES[request.param]()
    monkeypatch.setattr(sha256, "find", lambda: found if request.param != "hashlib" else None)
    return str(request.param)


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def write(folder: Path, sizes: Sequence[int]) -> dict[Path, bytes]:
    files = {folder / f"{place}-{size}": content(size) for place, size in enumerate(sizes)}
    for path, data in files.items():
        path.write_bytes(data)
    return files


def test_this_machine_can_play_it() -> None:
    """Without it nothing here tells whether it is right."""
    assert sha256.find() is not None


# FIPS 180-4 has no vectors of its own; these are NIST's examples for it.
@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ],
)
def test_examples_of_the_standard(tmp_path: Path, engine: str, message: bytes, digest: str) -> None:
    (tmp_path / "file").write_bytes(message)
    with Hasher(threads=1) as hasher:
        assert hasher.begin(tmp_path / "file", size=len(message)).sha256.result(timeout=60) == digest


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_files_of_all_sizes_have_hashlibs_digests(tmp_path: Path, engine: str, threads: int) -> None:
    files, seen = write(tmp_path, SIZES), list[int]()
    with Hasher(threads=threads) as hasher:
        begun = {path: hasher.begin(path, size=len(data), tick=seen.append) for path, data in files.items()}
        found = {path: file.sha256.result(timeout=60) for path, file in begun.items()}
    assert found == {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    assert sum(seen) == sum(SIZES)
    assert all(file.hashed == file.size for file in begun.values())


BLOCKS = st.tuples(st.integers(0, 5000), st.integers(0, 5000))


@settings(max_examples=50, deadline=None)
@given(before=BLOCKS, after=BLOCKS, tails=st.tuples(st.integers(0, 63), st.integers(0, 63)))
def test_two_files_go_on_from_wherever_they_are(
    tmp_path_factory: pytest.TempPathFactory, before: tuple[int, int], after: tuple[int, int], tails: tuple[int, int]
) -> None:
    """Each begins on its own, both are hashed together, and each ends on its own."""
    engine, parts = TwoAtATime(), list(zip(before, after, tails, strict=True))
    files = write(tmp_path_factory.mktemp("files"), [BLOCK * (start + end) + tail for start, end, tail in parts])
    together = min(after)
    with ExitStack() as stack:
        opened = [stack.enter_context(path.open("rb")) for path in files]
        states = [engine.begin(file.fileno()) for file in opened]
        for state, start in zip(states, before, strict=True):
            engine.advance([state], BLOCK * start)
        engine.advance(states, BLOCK * together)
        for state, end in zip(states, after, strict=True):
            engine.advance([state], BLOCK * (end - together))
        for state, data in zip(states, files.values(), strict=True):
            assert state.failure == 0
            assert engine.finish(state, data[state.offset :]) == hashlib.sha256(data).hexdigest()


def test_a_message_that_is_longer_than_32_bits_count(tmp_path: Path) -> None:
    """Its length in bits goes to the end of its padding: more than 2**32 of them."""
    path, size = tmp_path / "sparse", 2**29 + 2**20 + 3
    with path.open("wb") as file:
        file.truncate(size)
    with Hasher(threads=1) as hasher, path.open("rb") as file:
        assert (
            hasher.begin(path, size=size).sha256.result(timeout=60) == hashlib.file_digest(file, "sha256").hexdigest()
        )


class Watched(TwoAtATime):
    """Notes who was hashed with whom, and holds the first call until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[tuple[int, int]]] = []
        self.go = threading.Event()
        self.entered = 0

    def advance(self, files: Sequence[Any], size: int) -> None:
        self.entered += 1
        self.go.wait()
        self.calls.append([(file.descriptor, size) for file in files])
        super().advance(files, size)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    engine = Watched()
    monkeypatch.setattr(sha256, "find", lambda: engine)
    yield engine
    engine.go.set()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def alone(calls: Sequence[Sequence[tuple[int, int]]]) -> int:
    """Bytes that were hashed of one file at a time."""
    return sum(size for call in calls for _, size in call if len(call) == 1)


def test_two_files_are_hashed_together_and_no_second_thread_takes_one_of_them(tmp_path: Path, watched: Watched) -> None:
    (first, _), (second, _) = write(tmp_path, [4 * PIECE, 6 * PIECE]).items()
    with Hasher(threads=4) as hasher:
        begun = [hasher.begin(first, size=4 * PIECE)]
        until(lambda: watched.entered == 1)
        begun.append(hasher.begin(second, size=6 * PIECE))
        time.sleep(A_MOMENT)
        watched.go.set()
        for file in begun:
            file.sha256.result(timeout=60)
    assert [len(call) for call in watched.calls] == [1, 2, 2, 2, 1, 1, 1]


def test_a_file_waits_for_one_that_is_being_written_and_has_more_left(tmp_path: Path, watched: Watched) -> None:
    (base, _), (output, data) = write(tmp_path, [4 * PIECE, 5 * PIECE]).items()
    watched.go.set()
    with Hasher(threads=2) as hasher:
        late = hasher.begin(output, size=len(data), there=0, urgent=True)
        early = hasher.begin(base, size=4 * PIECE)
        time.sleep(A_MOMENT)
        assert early.hashed == 0, "alone now, it would leave the other one alone later"
        for there in range(PIECE, len(data) + 1, PIECE):
            hasher.written(late, there)
        assert late.sha256.result(timeout=60) == hashlib.sha256(data).hexdigest()
        early.sha256.result(timeout=60)
    assert alone(watched.calls) <= 2 * PIECE


def test_a_file_that_has_most_left_does_not_wait(tmp_path: Path, watched: Watched) -> None:
    (base, data), (output, _) = write(tmp_path, [3 * PIECE, 2 * PIECE]).items()
    watched.go.set()
    with Hasher(threads=2) as hasher:
        late = hasher.begin(output, size=2 * PIECE, there=0, urgent=True)
        early = hasher.begin(base, size=len(data))
        until(lambda: early.left <= late.left)
        assert not early.sha256.done()
        hasher.written(late, 2 * PIECE)
        assert early.sha256.result(timeout=60) == hashlib.sha256(data).hexdigest()


def test_what_was_written_is_hashed_before_it_is_too_much(tmp_path: Path, watched: Watched) -> None:
    """Alone too: what waits longer would have to be read from the disk."""
    (one, _), (other, _) = write(tmp_path, [4 * PIECE, 6 * PIECE]).items()
    watched.go.set()
    with Hasher(threads=2) as hasher:
        idle = hasher.begin(other, size=6 * PIECE, there=0, urgent=True)
        busy = hasher.begin(one, size=4 * PIECE, there=0, urgent=True)
        hasher.written(busy, BACKLOG - BLOCK)
        time.sleep(A_MOMENT)
        assert busy.hashed == 0
        hasher.written(busy, BACKLOG)
        until(lambda: busy.hashed > 0)
        assert not idle.hashed


def test_who_waits_goes_on_when_the_other_is_given_up(tmp_path: Path, engine: str) -> None:
    (base, data), (output, _) = write(tmp_path, [2 * PIECE, 3 * PIECE]).items()
    with Hasher(threads=2) as hasher:
        given_up = hasher.begin(output, size=3 * PIECE, there=0, urgent=True)
        waiting = hasher.begin(base, size=2 * PIECE)
        hasher.abandon(given_up)
        assert waiting.sha256.result(timeout=60) == hashlib.sha256(data).hexdigest()
    assert given_up.sha256.cancelled()


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["first", "second"])
def test_one_that_fails_leaves_the_other_alone(tmp_path: Path, engine: str, order: slice) -> None:
    """Shorter than it was, in the middle of what both are hashed of."""
    (good, data), (short, _) = write(tmp_path, [3 * PIECE + 5, PIECE + 2**17 + 3]).items()
    with Hasher(threads=1) as hasher:
        begun = dict[Path, HashedFile]()
        for path in [good, short][order]:
            begun[path] = hasher.begin(path, size=len(data))
        with pytest.raises(Infrastructure, match="shorter"):
            begun[short].sha256.result(timeout=60)
        assert begun[good].sha256.result(timeout=60) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("missing", [1, 31, 63])
def test_the_end_is_hashed_when_it_is_written_and_not_before(tmp_path: Path, engine: str, missing: int) -> None:
    path, data = tmp_path / "file", content(2**19)
    path.write_bytes(data[:-missing] + bytes(missing))
    with Hasher(threads=1) as hasher, path.open("r+b", buffering=0) as file:
        hashed = hasher.begin(path, size=len(data), there=0, urgent=True)
        hasher.written(hashed, len(data) - missing)
        until(lambda: hashed.left <= BLOCK)
        time.sleep(A_MOMENT)
        assert not hashed.sha256.done()
        file.seek(-missing, 2)
        file.write(data[-missing:])
        hasher.written(hashed, len(data))
        assert hashed.sha256.result(timeout=60) == hashlib.sha256(data).hexdigest()


def test_what_is_urgent_comes_first_and_stays_first(tmp_path: Path, watched: Watched) -> None:
    (first, _), (second, _), (third, _) = write(tmp_path, [3 * PIECE, 3 * PIECE + 1, 3 * PIECE + 2]).items()
    with Hasher(threads=1) as hasher:
        patient = [hasher.begin(first, size=3 * PIECE)]
        until(lambda: watched.entered == 1)
        patient.append(hasher.begin(second, size=3 * PIECE + 1))
        urgent = hasher.begin(third, size=3 * PIECE + 2, urgent=True)
        watched.go.set()
        urgent.sha256.result(timeout=60)
        for file in patient:
            file.sha256.result(timeout=60)
    of_urgent = watched.calls[1][0][0]
    with_it = [of_urgent in [descriptor for descriptor, _ in call] for call in watched.calls]
    assert with_it[:4] == [False, True, True, True]


def test_nothing_reads_a_file_that_was_abandoned(tmp_path: Path, watched: Watched) -> None:
    ((path, data),) = write(tmp_path, [2 * PIECE]).items()
    with Hasher(threads=1) as hasher:
        file = hasher.begin(path, size=len(data))
        until(lambda: watched.entered == 1)
        threading.Timer(A_MOMENT, watched.go.set).start()
        hasher.abandon(file)
        assert file.descriptor < 0
        assert len(watched.calls) == 1


def test_a_hasher_ends_with_the_piece_that_is_being_hashed(tmp_path: Path, watched: Watched) -> None:
    files = write(tmp_path, [9 * PIECE, 8 * PIECE])
    with Hasher(threads=1) as hasher:
        begun = [hasher.begin(path, size=len(data)) for path, data in files.items()]
        until(lambda: watched.entered == 1)
        threading.Timer(A_MOMENT, watched.go.set).start()
    assert len(watched.calls) == 1
    assert all(file.sha256.cancelled() and file.descriptor < 0 for file in begun)


def test_a_file_that_grew_is_told(tmp_path: Path, engine: str) -> None:
    (tmp_path / "file").write_bytes(bytes(129))
    with Hasher(threads=1) as hasher, pytest.raises(Infrastructure, match="longer"):
        hasher.begin(tmp_path / "file", size=128).sha256.result(timeout=60)


def test_a_library_that_cannot_be_loaded_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "damaged.so").write_bytes(b"no library")
    for path in (tmp_path / "damaged.so", tmp_path / "missing.so"):
        monkeypatch.setattr(sha256, "SHA256", path)
        assert sha256.find.__wrapped__() is None


def test_a_tail_that_is_gone_is_told(tmp_path: Path, engine: str) -> None:
    (tmp_path / "file").write_bytes(bytes(70))
    with Hasher(threads=1) as hasher, pytest.raises(Infrastructure, match="shorter"):
        hasher.begin(tmp_path / "file", size=71).sha256.result(timeout=60)


def test_a_place_that_cannot_be_read_is_told(tmp_path: Path, engine: str) -> None:
    with Hasher(threads=1) as hasher:
        with pytest.raises(IsADirectoryError):
            hasher.begin(tmp_path, size=4096).sha256.result(timeout=60)
        with pytest.raises(FileNotFoundError):
            hasher.begin(tmp_path / "missing", size=1).sha256.result(timeout=60)


def test_a_file_that_one_may_not_read_is_told(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(hashing.os, "open", refuse)  # who tests as root may read everything
    with Hasher(threads=1) as hasher, pytest.raises(Refused, match="not readable by user"):
        hasher.begin(tmp_path / "file", size=1).sha256.result(timeout=60)


def test_work_that_must_stop_is_its_files_result(tmp_path: Path, engine: str) -> None:
    def stop(_count: int) -> None:
        raise Terminated("Terminated", "stopped")

    (first, _), (second, data) = write(tmp_path, [2 * PIECE, 2 * PIECE + 1]).items()
    with Hasher(threads=1) as hasher:
        stopped = hasher.begin(first, size=2 * PIECE, tick=stop)
        other = hasher.begin(second, size=len(data))
        with pytest.raises(Terminated):
            stopped.sha256.result(timeout=60)
        assert other.sha256.result(timeout=60) == hashlib.sha256(data).hexdigest()


def test_what_nobody_waits_for_ends_with_the_hasher(tmp_path: Path, engine: str) -> None:
    files = write(tmp_path, [3 * PIECE] * 3)
    with Hasher(threads=2) as hasher:
        begun = [hasher.begin(path, size=len(data)) for path, data in files.items()]
        begun.append(hasher.begin(tmp_path / "later", size=1, there=0))
    assert all(file.sha256.done() for file in begun)
    assert all(file.descriptor < 0 for file in begun)
    assert "sha256" not in {thread.name.rpartition("_")[0] for thread in threading.enumerate()}


def test_an_error_of_whoever_hashes_is_told_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(TwoAtATime):
        def advance(self, files: Sequence[Any], size: int) -> None:
            raise MemoryError

    monkeypatch.setattr(sha256, "find", Broken)
    files = write(tmp_path, [100, 200])
    with Hasher(threads=1) as hasher:
        for path, data in files.items():
            with pytest.raises(MemoryError):
                hasher.begin(path, size=len(data)).sha256.result(timeout=60)


def test_compiled_code_is_never_given_what_it_does_not_expect(tmp_path: Path) -> None:
    engine = TwoAtATime()
    state = engine.begin(0)
    for files, size in (([], 64), ([state] * 3, 64), ([state], 63), ([state], -64)):
        with pytest.raises(AssertionError):
            engine.advance(files, size)

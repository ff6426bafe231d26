"""The digest of a file that is still being written: in whatever order its parts come, it is the finished file's."""

import hashlib
import itertools
import mmap
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lora_job import hashing
from lora_job.hashing import Hasher
from lora_job.merge import file_digest, writeback
from lora_job.merge.file_digest import FileDigest
from lora_job.merge.layout import Layout
from lora_job.merge.writeback import Writeback
from lora_job.outcome import Infrastructure, Terminated

SPANS = [("", 24), ("a", 3_000_000), ("empty", 0), ("b", 1), ("c", 262_144)]


@contextmanager
def begun(
    path: Path, spans: Sequence[tuple[str, int]], *, check: Callable[[], None] = lambda: None
) -> Iterator[FileDigest]:
    """With a hasher of its own."""
    with (
        Hasher(threads=2) as hasher,
        Writeback() as writeback,
        FileDigest(path, spans=spans, check=check, hasher=hasher, writeback=writeback) as digest,
    ):
        yield digest


def parts() -> dict[str, bytes]:
    return {name: random.Random(name).randbytes(size) for name, size in SPANS}


@pytest.mark.parametrize(
    "order", [SPANS, SPANS[::-1], [SPANS[2], SPANS[4], SPANS[0], SPANS[3], SPANS[1]]], ids=["first to last", "last to first", "mixed"]
)  # fmt: skip
def test_parts_that_come_in_any_order_give_the_digest_of_the_file(
    tmp_path: Path, order: Sequence[tuple[str, int]]
) -> None:
    path, content = tmp_path / "file", parts()
    begins = dict(zip(content, itertools.accumulate((size for _, size in SPANS), initial=0), strict=False))
    path.write_bytes(bytes(sum(size for _, size in SPANS)))
    with begun(path, SPANS) as digest, path.open("r+b") as file:
        for name, _ in order:
            file.seek(begins[name])
            file.write(content[name])
            file.flush()
            digest.written(name)
        assert digest.result() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_part_may_come_in_pieces(tmp_path: Path) -> None:
    """What of it is not there yet is not hashed."""
    path, content = tmp_path / "file", parts()
    path.write_bytes(bytes(sum(size for _, size in SPANS)))
    with begun(path, SPANS) as digest, path.open("r+b", buffering=0) as file:
        place = 0
        for name, data in content.items():
            for start in range(0, len(data), 400_000) or [0]:
                file.seek(place + start)
                file.write(data[start : start + 400_000])
                digest.written(name, min(len(data), start + 400_000))
                time.sleep(0.005)
            place += len(data)
        assert path.read_bytes() == b"".join(content.values())
        assert digest.result() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_writer_that_fails_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))

    def fail() -> None:
        with begun(tmp_path / "file", [("a", 50), ("b", 50)]) as digest:
            digest.written("a")
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert {"sha256", "writeback"}.isdisjoint(thread.name.rpartition("_")[0] for thread in threading.enumerate())


def test_a_file_that_is_shorter_than_planned_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(99))
    with begun(tmp_path / "file", [("a", 100)]) as digest:
        digest.written("a")
        with pytest.raises(Infrastructure, match="shorter"):
            digest.result()


def test_hashing_stops_when_it_is_told_to(tmp_path: Path) -> None:
    def stopped() -> None:
        raise Terminated("Terminated", "stopped")

    (tmp_path / "file").write_bytes(bytes(100))
    with begun(tmp_path / "file", [("a", 100)], check=stopped) as digest:
        digest.written("a")
        with pytest.raises(Terminated):
            digest.result()


def test_spans_cover_a_file_from_its_header_to_its_end() -> None:
    layout = Layout(head=b"12345678", places={"a": 8, "empty": 20, "b": 20}, size=21)
    assert layout.spans == [("", 8), ("a", 12), ("empty", 0), ("b", 1)]
    assert Layout(head=b"12345678", places={}, size=8).spans == [("", 8)]


def test_what_was_hashed_leaves_the_page_cache_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, dropped = mmap.PAGESIZE, list[tuple[int, int]]()
    path, content = tmp_path / "file", random.Random(1).randbytes(40 * mmap.PAGESIZE + 17)
    path.write_bytes(content)
    monkeypatch.setattr(hashing, "PIECE", 2 * page)
    monkeypatch.setattr(file_digest, "BEHIND", 8 * page)

    def note(_writeback: Writeback, _descriptor: int, offset: int, size: int) -> None:
        dropped.append((offset, offset + size))

    monkeypatch.setattr(Writeback, "drop", note)
    spans = [("a", 25 * page + 5), ("b", len(content) - 25 * page - 5)]
    with begun(path, spans) as digest:
        digest.written("a")
        digest.written("b")
        assert digest.result() == hashlib.sha256(content).hexdigest()
    assert [begin for begin, _ in dropped] == [0, *(end for _, end in dropped[:-1])], "no gap and nothing twice"
    assert all(end - begin >= 8 * page and end % page == 0 for begin, end in dropped)
    assert 24 * page <= dropped[-1][1] <= len(content) - 8 * page, (
        "most of the file, but for what somebody may still verify"
    )


def test_written_ranges_are_on_the_disk_before_they_leave_memory(tmp_path: Path) -> None:
    path, content = tmp_path / "file", random.Random(2).randbytes(2**20)
    path.write_bytes(content)
    with path.open("r+b") as file:
        with Writeback() as writeback:
            writeback.begin(file.fileno(), 0, len(content))
            writeback.drop(file.fileno(), 0, len(content))
        assert file.read() == content
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_DONTNEED, 0, len(content))
            assert mapped[:] == content


def test_a_busy_disk_is_waited_for_with_few_descriptors_and_not_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(bytes(1))
    busy, calls, most = threading.Event(), list[int](), 0

    def wait(_descriptor: int, offset: int, _size: int, _what: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            busy.wait(30)
        calls.append(offset)

    monkeypatch.setattr(writeback, "_sync_range", wait)
    before = descriptors()

    def fail() -> None:
        nonlocal most
        with Writeback() as asked, (tmp_path / "file").open("rb") as file:
            for place in range(500):
                asked.begin(file.fileno(), place, 1)
            most = descriptors() - before
            threading.Timer(0.1, busy.set).start()
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert most <= writeback.AHEAD + 5
    assert len(calls) <= 500 - writeback.AHEAD + 2, "what waited was given up"
    assert descriptors() <= before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))

"""The digest of a file that is still being written: in whatever order its parts come, it is the finished file's."""

import hashlib
import itertools
import mmap
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from lora_job.merge import file_digest
from lora_job.merge.file_digest import FileDigest
from lora_job.merge.layout import Layout
from lora_job.merge.writeback import drop_written
from lora_job.outcome import Infrastructure, Terminated

SPANS = [("", 24), ("a", 3_000_000), ("empty", 0), ("b", 1), ("c", 262_144)]


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
    with FileDigest(path, spans=SPANS, check=lambda: None) as digest, path.open("r+b") as file:
        for name, _ in order:
            file.seek(begins[name])
            file.write(content[name])
            file.flush()
            digest.written(name)
        assert digest.result() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_writer_that_fails_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))

    def fail() -> None:
        with FileDigest(tmp_path / "file", spans=[("a", 50), ("b", 50)], check=lambda: None) as digest:
            digest.written("a")
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert "digest" not in {thread.name.rpartition("_")[0] for thread in threading.enumerate()}


def test_a_file_that_is_shorter_than_planned_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(99))
    with FileDigest(tmp_path / "file", spans=[("a", 100)], check=lambda: None) as digest:
        digest.written("a")
        with pytest.raises(Infrastructure, match="shorter"):
            digest.result()


def test_hashing_stops_when_it_is_told_to(tmp_path: Path) -> None:
    def stopped() -> None:
        raise Terminated("Terminated", "stopped")

    (tmp_path / "file").write_bytes(bytes(100))
    with FileDigest(tmp_path / "file", spans=[("a", 100)], check=stopped) as digest:
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
    page, dropped, looked = mmap.PAGESIZE, list[tuple[int, int]](), list[int]()
    path, content = tmp_path / "file", random.Random(1).randbytes(40 * mmap.PAGESIZE + 17)
    path.write_bytes(content)
    monkeypatch.setattr(file_digest, "AT_ONCE", 2 * page)
    monkeypatch.setattr(file_digest, "BEHIND", 8 * page)

    def note(_descriptor: int, offset: int, size: int) -> None:
        dropped.append((offset, offset + size))

    monkeypatch.setattr(file_digest, "drop_written", note)
    spans = [("a", 25 * page + 5), ("b", len(content) - 25 * page - 5)]
    with FileDigest(path, spans=spans, check=lambda: looked.append(len(dropped))) as digest:
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
        drop_written(file.fileno(), 0, len(content))
        assert file.read() == content
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_DONTNEED, 0, len(content))
            assert mapped[:] == content

"""Whose turn it is: files share the workers evenly, each begins its tensors in order, and the last file gets all of them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest

from lora_job.merge.lanes import Turns, check_running
from lora_job.outcome import Terminated


class Work:
    """Tensors that are worked on until they are let go."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._pool = ThreadPoolExecutor(16)
        self._changed = threading.Condition()
        self._begun: list[tuple[str, int]] = []
        self._ended: set[tuple[str, int]] = set()
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._pool.shutdown()

    def ask(self, file: str, place: int) -> None:
        self._pool.submit(self._work, file, place)

    def _work(self, file: str, place: int) -> None:
        with self._turns._turn(file, place), self._changed:
            self._begun.append((file, place))
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._over or (file, place) in self._ended)

    def begun(self, count: int) -> list[tuple[str, int]]:
        """Once so many have begun; a moment later there must not be more."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._begun) >= count, timeout=30)
            self._changed.wait_for(lambda: len(self._begun) > count, timeout=0.05)
            return list(self._begun)

    def end(self, file: str, place: int) -> None:
        with self._changed:
            self._ended.add((file, place))
            self._changed.notify_all()


def test_tensors_of_a_file_begin_in_its_order_whoever_asked_first() -> None:
    turns = Turns(2)
    with turns.taken_for("a"), Work(turns) as work:
        for place in range(2):
            work.ask("a", place)
            work.begun(place + 1)
        for place in reversed(range(2, 10)):
            work.ask("a", place)
        assert work.begun(2) == [("a", 0), ("a", 1)]
        for place in range(8):
            work.end("a", place)
            assert work.begun(place + 3)[place + 2 :] == [("a", place + 2)]


def test_no_worker_waits_while_a_tensor_does() -> None:
    turns = Turns(2)
    with turns.taken_for("a"), Work(turns) as work:
        for place in reversed(range(16)):
            work.ask("a", place)
        for count in range(2, 16, 2):
            for file, place in work.begun(count)[-2:]:
                work.end(file, place)
        assert len(work.begun(16)) == 16


def test_two_files_have_half_each_until_one_of_them_is_done() -> None:
    turns = Turns(2)
    with turns.taken_for("b"), Work(turns) as work:
        with turns.taken_for("a"):
            for place in range(2):
                work.ask("a", place)
            assert len(work.begun(1)) == 1, "the second is the other file's, even while that has not asked"
            work.ask("b", 0)
            work.ask("b", 1)
            assert {file for file, _ in work.begun(2)} == {"a", "b"}
            for place in range(2):
                work.end("a", place)
            assert ("a", 1) in work.begun(3)
        assert set(work.begun(4)) == {("a", 0), ("a", 1), ("b", 0), ("b", 1)}


def test_more_files_than_workers_share_what_there_is() -> None:
    turns = Turns(1)
    with turns.taken_for("a"), turns.taken_for("b"), Work(turns) as work:
        work.ask("a", 0)
        work.begun(1)
        work.ask("b", 0)
        assert work.begun(1) == [("a", 0)]
        work.end("a", 0)
        assert work.begun(2)[1:] == [("b", 0)]


def test_a_tensor_that_fails_gives_its_turn_back() -> None:
    turns = Turns(1)
    with turns.taken_for("a") as turn:
        with pytest.raises(OSError, match="disk"), turn(0):
            raise OSError("disk")
        with turn(1):
            pass


def test_work_that_must_stop_is_told() -> None:
    stop = threading.Event()
    check_running(stop)
    stop.set()
    with pytest.raises(Terminated):
        check_running(stop)

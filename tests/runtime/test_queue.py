"""The work queue: once waiting, once in work, failures back off, a poisoned key does not stop the others."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from lora_operator.runtime.queue import Key, Queue

A, B = Key("loraadapters", "ns", "a"), Key("loraadapters", "ns", "b")


class Bench:
    """A queue with a scripted reconcile."""

    def __init__(self, work: Callable[[Key], Awaitable[float | None]]) -> None:
        self.errors: list[tuple[Key, Exception]] = []
        self.queue = Queue(reconcile=work, on_error=lambda key, error: self.errors.append((key, error)), workers=3)

    async def until(self, holds: Callable[[], bool]) -> None:
        running = asyncio.create_task(self.queue.run())
        try:
            async with asyncio.timeout(10):
                while not holds():
                    await asyncio.sleep(0.005)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_key_added_many_times_is_worked_once() -> None:
    seen: Counter[Key] = Counter()

    async def work(key: Key) -> None:
        seen[key] += 1

    bench = Bench(work)
    for _ in range(50):
        bench.queue.add(A)
    bench.queue.add(B)
    await bench.until(lambda: seen[A] >= 1 and seen[B] >= 1)
    assert seen == {A: 1, B: 1}


async def test_a_key_is_never_worked_twice_at_the_same_time_and_runs_again_when_added_meanwhile() -> None:
    inside, most, rounds = 0, 0, 0

    async def work(key: Key) -> None:
        nonlocal inside, most, rounds
        inside += 1
        most = max(most, inside)
        if rounds == 0:
            bench.queue.add(A)
            bench.queue.add(A)
        await asyncio.sleep(0.01)
        inside -= 1
        rounds += 1

    bench = Bench(work)
    bench.queue.add(A)
    await bench.until(lambda: rounds >= 2)
    assert (most, rounds) == (1, 2)


async def test_a_poisoned_key_is_retried_with_backoff_and_does_not_stop_the_others() -> None:
    seen: Counter[Key] = Counter()

    async def work(key: Key) -> None:
        seen[key] += 1
        if key == A:
            raise RuntimeError("poison")

    bench = Bench(work)
    bench.queue.add(A)
    bench.queue.add(B)
    await bench.until(lambda: seen[A] >= 2 and seen[B] >= 1)
    assert [str(error) for _, error in bench.errors] == ["poison"] * seen[A]


async def test_what_a_reconcile_returns_is_when_it_looks_again() -> None:
    seen = 0

    async def work(key: Key) -> float | None:
        nonlocal seen
        seen += 1
        return 0.01 if seen < 3 else None

    bench = Bench(work)
    bench.queue.add(A)
    await bench.until(lambda: seen == 3)
    assert len(bench.queue) == 0


async def test_an_earlier_wish_replaces_a_later_one() -> None:
    seen = asyncio.Event()

    async def work(key: Key) -> None:
        seen.set()

    bench = Bench(work)
    bench.queue.add(A, after=3600)
    bench.queue.add(A)
    await bench.until(seen.is_set)
    assert len(bench.queue) == 0

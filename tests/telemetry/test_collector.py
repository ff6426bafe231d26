"""When figures are read: once in an interval, at the start of each stage, never twice at the same time; and what a failure leaves."""

import asyncio
from datetime import UTC, datetime

from lora_operator.core.plan import Collect
from lora_operator.reconcile.collector import Collector
from lora_operator.runtime.queue import Key
from lora_operator.telemetry.base import Figures

KEY = Key("loradeployments", "shop", "fin")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class _Clock:
    def now(self) -> datetime:
        return NOW


class _Source:
    """Counts how often it is asked; answers once `go` is set."""

    def __init__(self, *, fails: bool = False) -> None:
        self.asked: list[Collect] = []
        self.go = asyncio.Event()
        self.go.set()
        self.fails = fails

    async def read(self, asked: Collect) -> Figures:
        self.asked.append(asked)
        await self.go.wait()
        if self.fails:
            raise RuntimeError("of a kind nobody thought of")
        return Figures(problems=("seen",))


def collect(*, stage: str = "1", rollout: str = "a", interval: int = 3600, prometheus: str = "") -> Collect:
    return Collect(
        rollout=rollout, stage=stage, interval_seconds=interval, namespace="shop", targets=(), prometheus=prometheus
    )


class World:
    def __init__(self, *, fails: bool = False) -> None:
        self.pods, self.prometheus, self.woken = _Source(fails=fails), _Source(), [0]
        self.collector = Collector(
            scrape=self.pods, prometheus=self.prometheus, wake=lambda _: self.woken.append(1), clock=_Clock()
        )

    async def ask(self, asked: Collect) -> None:
        self.collector.start(asked, key=KEY)
        for _ in range(5):
            await asyncio.sleep(0)


def test_it_reads_once_in_an_interval_and_at_the_start_of_each_stage_and_rollout() -> None:
    async def run() -> None:
        world = World()
        assert world.collector.sample(KEY) is None
        for asked in (collect(), collect(), collect(stage="2"), collect(stage="2"), collect(stage="2", rollout="b")):
            await world.ask(asked)
        assert [(one.stage, one.rollout) for one in world.pods.asked] == [("1", "a"), ("2", "a"), ("2", "b")]
        assert sum(world.woken) == 3
        await world.ask(collect(stage="2", rollout="b", interval=0))
        assert len(world.pods.asked) == 4

    asyncio.run(run())


def test_a_sample_says_when_and_for_what_it_was_taken() -> None:
    async def run() -> None:
        world = World()
        await world.ask(collect(stage="3/25", rollout="r"))
        sample = world.collector.sample(KEY)
        assert sample is not None
        assert (sample.at, sample.stage, sample.rollout, sample.problems) == (NOW, "3/25", "r", ("seen",))

    asyncio.run(run())


def test_a_slow_source_is_not_asked_twice_at_the_same_time() -> None:
    async def run() -> None:
        world = World()
        world.pods.go.clear()
        await world.ask(collect(interval=0))
        await world.ask(collect(interval=0, stage="2"))
        assert len(world.pods.asked) == 1
        world.pods.go.set()
        await world.ask(collect(interval=0, stage="2"))
        await world.ask(collect(interval=0, stage="2"))
        assert len(world.pods.asked) >= 2

    asyncio.run(run())


def test_the_source_is_the_one_that_is_asked_for() -> None:
    async def run() -> None:
        world = World()
        await world.ask(collect(prometheus="http://p:9090"))
        assert (len(world.pods.asked), len(world.prometheus.asked)) == (0, 1)

    asyncio.run(run())


def test_a_source_that_breaks_is_no_figure_and_ends_nothing() -> None:
    async def run() -> None:
        world = World(fails=True)
        await world.ask(collect())
        sample = world.collector.sample(KEY)
        assert sample is not None
        assert (sample.readings, sample.problems) == ({}, ("RuntimeError: of a kind nobody thought of",))
        await world.ask(collect(stage="2"))
        assert len(world.pods.asked) == 2

    asyncio.run(run())


def test_what_is_forgotten_is_read_again_and_an_old_answer_does_not_come_back() -> None:
    async def run() -> None:
        world = World()
        world.pods.go.clear()
        await world.ask(collect())
        world.collector.forget(KEY)
        world.pods.go.set()
        await asyncio.sleep(0)
        assert world.collector.sample(KEY) is None
        await world.ask(collect())
        assert len(world.pods.asked) == 2
        assert world.collector.sample(KEY) is not None

    asyncio.run(run())

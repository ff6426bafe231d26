"""What everybody shares who writes or verifies files of one build: sources, memory, and threads that are for all of them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from lora_job.hashing import Hasher
from lora_job.merge.blocks import Blocks
from lora_job.merge.factors import Deltas
from lora_job.merge.lanes import Turns, check_running, in_lanes
from lora_job.merge.plan import ShardPlan, Step
from lora_job.merge.stream import Sources
from lora_job.merge.writeback import Writeback
from lora_job.tensors import Checkpoint

__all__ = ["BuildContext"]

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """Of one build; safe to use from several threads."""

    base: Checkpoint
    deltas: Deltas
    workers: int
    """Tensors at a time, of all files together."""
    hasher: Hasher
    writeback: Writeback
    stop: threading.Event = field(default_factory=threading.Event)
    _blocks: Blocks = field(default_factory=Blocks)
    _turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_turns", Turns(self.workers))

    def each_tensor(self, work: Callable[[Step], Result], shard: ShardPlan) -> list[Result]:
        """Results in the order of the file; some at a time, when it is this file's turn."""
        with self._turns.taken_for(shard.file) as turn:

            def in_turn(numbered: tuple[int, Step]) -> Result:
                place, step = numbered
                with turn(place):
                    return work(step)

            return in_lanes(in_turn, enumerate(shard.steps), lanes=self.workers, stop=self.stop)

    @contextmanager
    def sources(self) -> Iterator[Sources]:
        """What a tensor is made of; the memory that is taken is the next one's afterwards."""
        with self._blocks.lent() as take:
            yield Sources(base=self.base, adapters=self.deltas.adapters, files=self.deltas.files, take=take)

    def check(self) -> None:
        """Raises when the work must stop."""
        check_running(self.stop)
